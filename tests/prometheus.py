"""A Prometheus that runs, asked over its HTTP API (prometheus.io/docs/prometheus/latest/querying/api)."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import requests

PATIENCE_S = 30

T = TypeVar("T")


@dataclass(frozen=True)
class Prometheus:
    url: str

    def ask(self, path: str, **parameters: str) -> requests.Response:
        return requests.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=10)

    def gateways(self) -> dict[str, str]:
        """What keeps it from reading each gateway that it found, by address: nothing where it reads it."""
        found = self.ask("targets", state="active").json()["data"]["activeTargets"]
        ours = (
            target for target in found if target["labels"]["job"] == "gmi-gateway" and target["health"] != "unknown"
        )
        return {target["labels"]["instance"]: target["lastError"] for target in ours}

    def rules(self) -> dict[str, dict[str, Any]]:
        """What became of each rule, by the name of its alert."""
        groups = self.ask("rules").json()["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}

    def series(self, query: str) -> list[dict[str, Any]]:
        reply = self.ask("query", query=query)
        assert reply.status_code == 200, f"{query}: {reply.text}"
        return list(reply.json()["data"]["result"])

    def value(self, query: str) -> float:
        """That of the one series that `query` gives; 0 where there is none."""
        return sum(float(series["value"][1]) for series in self.series(query))


def comes_to(state: Callable[[], T], wanted: Callable[[T], bool]) -> T:
    """The state once it is as wanted, or as it is after `PATIENCE_S`: Prometheus tells nobody when it has read.

    To ask again takes its time, so nothing else is waited for in between.
    """
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(found := state()) and time.monotonic() < deadline:
        pass
    return found
