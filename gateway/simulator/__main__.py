"""`python -m gateway.simulator`: the simulator alone, in the foreground."""

import argparse
import os

from gateway.simulator import serve


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m gateway.simulator", description="A simulated GMI upstream.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8081)
    parser.add_argument("--seed", type=int, default=0, help="changes every id")
    arguments = parser.parse_args()
    # The key comes by environment, because arguments can be read by every process of the machine.
    api_key = os.environ.get("SIMULATOR_API_KEY")
    serve(arguments.host, arguments.port, seed=arguments.seed, api_key=api_key)


if __name__ == "__main__":
    main()
