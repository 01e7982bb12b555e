"""A simulated GMI: the API's shapes without a model, and faults on demand.

For a first try without a key, and for tests; imported by the faces and by
tests only. Every text starts with `[simulated]`, so that nobody mistakes it
for a model's. The language of faults is in `gateway.simulator.faults`.
"""

from gateway.simulator.server import build_simulator, running_simulator, serve

__all__ = ["build_simulator", "running_simulator", "serve"]
