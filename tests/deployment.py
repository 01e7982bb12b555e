"""A project of podman-compose, brought up from docker-compose.yml as a user would: three gateways, and all around them.

Knows how to bring it up, down and to change it, and how its clients call; what is to hold of it is for the tests.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.stand_ins import image_for
from tests.support.ports import free_port
from tests.test_container import ACCOUNT_KEY, ROOT, podman

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
NODES = 3
CHAT = {"model": "openai/gpt-5.2", "messages": [{"role": "user", "content": "Hello!"}]}
WATCHED = ("--profile", "observe")


class Deployment:
    """In a folder as a user has it: docker-compose.yml, config, and an `.env`. Its Prometheus reads every second."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder = folder
        self.project = f"gmi-gateway-test-{secrets.token_hex(4)}"
        port, upstream_port, prometheus_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.upstream_url = f"http://127.0.0.1:{upstream_port}"
        self.prometheus_url = f"http://127.0.0.1:{prometheus_port}"
        self._sessions = ExitStack()
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "test.yml").write_text(json.dumps(_overrides(image, upstream_port)))
        self.edit("config/prometheus/prometheus.yml", "_interval: 15s", "_interval: 1s")
        self.configure(
            POSTGRES_PASSWORD=secrets.token_hex(24), GMI_API_KEY=ACCOUNT_KEY, GMI_BASE_URL="http://upstream:8081/v1"
        )
        self.configure(PUBLISHED_PORT=port, GATEWAY_NODES=NODES)
        self.configure(
            PROMETHEUS_PORT=prometheus_port, GRAFANA_PORT=free_port(), GRAFANA_ADMIN_PASSWORD=secrets.token_hex(12)
        )

    def configure(self, **variables: object) -> None:
        """Add to the `.env`."""
        with (self.folder / ".env").open("a") as file:
            file.writelines(f"{name}={value}\n" for name, value in variables.items())

    def edit(self, file: str, old: str, new: str) -> None:
        """Write `new` for every `old` in one of the folder's files, in place, as a mounted one must be."""
        text = (self.folder / file).read_text(encoding="utf-8")
        assert old in text
        (self.folder / file).write_text(text.replace(old, new), encoding="utf-8")

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        files = ("-f", "docker-compose.yml", "-f", "test.yml")
        return podman_compose("-p", self.project, *files, *words, folder=self.folder)

    def up(self) -> None:
        """The stores first, since older versions of podman do not wait for `service_healthy`."""
        for services in (("postgres", "redis"), ()):
            done = self.compose("up", "--detach", *services)
            assert done.returncode == 0, done.stdout + done.stderr
            for service in services:
                self.wait_until_healthy(service)
        self.wait_until_all_answer()

    def watch(self) -> None:
        """Prometheus and Grafana beside it."""
        done = self.compose(*WATCHED, "up", "--detach")
        assert done.returncode == 0, done.stdout + done.stderr
        self.wait_until_healthy("prometheus")
        self.wait_until_healthy("grafana")

    def wait_until_healthy(self, service: str) -> None:
        deadline = time.monotonic() + 60
        (name,) = self.containers(service)
        while podman("healthcheck", "run", name, check=False).returncode:
            assert time.monotonic() < deadline, self.log(name)

    def down(self) -> None:
        self._sessions.close()
        self.compose(*WATCHED, "down", "--volumes", "--timeout", "0")

    def containers(self, service: str) -> list[str]:
        count = NODES if service == "gateway" else 1
        return [f"{self.project}_{service}_{i}" for i in range(1, count + 1)]

    def address(self, container: str) -> str:
        """On the network that nginx and Prometheus share with the gateways."""
        shown = podman("inspect", "--format={{json .NetworkSettings.Networks}}", container)
        return str(json.loads(shown.stdout)[f"{self.project}_default"]["IPAddress"])

    def logs(self, service: str) -> str:
        return "\n".join(f"{name}:\n{self.log(name)}" for name in self.containers(service))

    def log(self, container: str) -> str:
        shown = podman("logs", container, check=False)
        return shown.stdout + shown.stderr

    @cached_property
    def admin_keys(self) -> list[str]:
        """Every admin key that a gateway has printed, with repetitions."""
        return re.findall(r"Admin key, shown this once: (\S+)", self.logs("gateway"))

    @cached_property
    def admin(self) -> requests.Session:
        return self.session(self.admin_keys[0])

    def session(self, key: str) -> requests.Session:
        """A client that is closed when all is over."""
        session = self._sessions.enter_context(requests.Session())
        session.headers["Authorization"] = f"Bearer {key}"
        return session

    def new_key(self, **members: object) -> tuple[str, str]:
        """Id and secret of a new key, in a team of its own."""
        name = secrets.token_hex(4)
        team = self.admin.post(f"{self.url}/admin/v1/teams", json={"name": name}, timeout=10).json()
        body = {"team": team["id"], "name": name, **members}
        key = self.admin.post(f"{self.url}/admin/v1/keys", json=body, timeout=10).json()
        return key["id"], key["secret"]

    def chat(self, session: requests.Session, **options: Any) -> requests.Response:
        stream = options.get("stream", False)
        body = {**CHAT, "stream": stream}
        return session.post(f"{self.url}/v1/chat/completions", json=body, timeout=30, **options)

    def stream(self, session: requests.Session, simulate: str) -> requests.Response:
        reply = self.chat(session, stream=True, headers={"x-simulate": simulate})
        assert reply.status_code == 200, reply.text
        return reply

    def wait_until_all_answer(self) -> None:
        """Until each node was seen to answer, for a minute at most."""
        patience = Retry(total=50, status_forcelist=(502, 503), backoff_factor=0.1, raise_on_status=False)
        patience.backoff_max = 0.2
        nodes: set[str] = set()
        deadline = time.monotonic() + 60
        with requests.Session() as session:
            session.mount("http://", HTTPAdapter(max_retries=patience))
            while len(nodes) < NODES:
                if time.monotonic() > deadline:
                    pytest.fail(self.logs("nginx") + self.logs("gateway"))
                with suppress(requests.ConnectionError):
                    nodes.add(node_of(session.get(f"{self.url}/v1/models", timeout=10)))
                nodes.discard("")

    def upstream_sees(self, **conditions: int) -> bool:
        """Whether the simulator comes to see so many calls as `conditions` say, within two seconds."""
        query = {**conditions, "timeout_s": 2}
        return requests.get(f"{self.upstream_url}/_seen", params=query, timeout=10).status_code == 200

    def seen(self) -> list[dict[str, Any]]:
        return list(requests.get(f"{self.upstream_url}/_seen", timeout=10).json()["requests"])


def _overrides(image: str, upstream_port: int) -> dict[str, Any]:
    """What a test has that a user has not: images of its own, and a simulator that all gateways share."""
    simulator = {
        "image": image,
        "entrypoint": ["python", "-m", "gateway.simulator", "--host=0.0.0.0", "--port=8081"],
        "environment": {"SIMULATOR_API_KEY": ACCOUNT_KEY},
        "tmpfs": ["/data"],  # else a volume without a name, which `down` leaves behind
        "ports": [f"127.0.0.1:{upstream_port}:8081"],
    }
    others = {name: {"image": image_for(name, SERVICES[name]["image"])} for name in ("nginx", "prometheus", "grafana")}
    return {"services": {"gateway": {"image": image}, "upstream": simulator, **others}}


def podman_compose(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    ours = ("GATEWAY_", "GMI_", "POSTGRES_", "REDIS_", "PUBLISHED_", "PROMETHEUS_", "GRAFANA_", "COMPOSE_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "podman_compose", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def node_of(reply: requests.Response) -> str:
    """Which process answered: the part of the request id that all its calls share."""
    return reply.headers.get("x-gateway-request-id", "")[:20]
