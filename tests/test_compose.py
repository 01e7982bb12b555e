"""docker-compose.yml, brought up for real: three gateways behind nginx, on one PostgreSQL and one Redis.

Needs podman and podman-compose. Without them these tests are skipped, except in CI, where that is a failure. The images
of PostgreSQL, Redis and nginx are pulled, or are stand-ins where no registry can be reached. What the files
themselves say is for test_compose_files.py.
"""

import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from openai import OpenAI
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from tests.support.missing import is_missing
from tests.support.ports import free_port
from tests.test_container import ACCOUNT_KEY, ROOT, built_image, podman

SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]
NODES = 3
CHAT = {"model": "openai/gpt-5.2", "messages": [{"role": "user", "content": "Hello!"}]}

# nginx from Debian's testing, from where the image has its packages: that of older releases does not know
# `server … resolve`.
NGINX_STAND_IN = r"""
FROM docker.io/library/python:3.13-slim
RUN from=$(grep -rhoE 'https?://[^ ]+/debian/?( |$)' /etc/apt/sources.list /etc/apt/sources.list.d | head -n 1) \
 && echo "deb $from forky main" >> /etc/apt/sources.list \
 && apt-get -o Acquire::Check-Valid-Until=false update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
    -o Dpkg::Options::=--force-overwrite nginx curl
"""


class Deployment:
    """One project of podman-compose, in a folder as a user has it: docker-compose.yml, config, and an `.env`."""

    def __init__(self, folder: Path, image: str, nginx: str) -> None:
        self.folder = folder
        self.project = f"gmi-gateway-test-{secrets.token_hex(4)}"
        port, upstream_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._sessions = ExitStack()
        self.upstream_url = f"http://127.0.0.1:{upstream_port}"
        shutil.copy(ROOT / "docker-compose.yml", folder)
        shutil.copytree(ROOT / "config", folder / "config")
        (folder / "test.yml").write_text(json.dumps(_overrides(image, nginx, upstream_port)))
        (folder / ".env").write_text(
            f"POSTGRES_PASSWORD={secrets.token_hex(24)}\nGMI_API_KEY={ACCOUNT_KEY}\n"
            f"PUBLISHED_PORT={port}\nGATEWAY_NODES={NODES}\n"
            "GMI_BASE_URL=http://upstream:8081/v1\n"
        )

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

    def wait_until_healthy(self, service: str) -> None:
        deadline = time.monotonic() + 60
        (name,) = self.containers(service)
        while podman("healthcheck", "run", name, check=False).returncode:
            assert time.monotonic() < deadline, self.log(name)

    def down(self) -> None:
        self._sessions.close()
        self.compose("down", "--volumes", "--timeout", "0")

    def containers(self, service: str) -> list[str]:
        count = NODES if service == "gateway" else 1
        return [f"{self.project}_{service}_{i}" for i in range(1, count + 1)]

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


def _overrides(image: str, nginx: str, upstream_port: int) -> dict[str, Any]:
    """What a test has that a user has not: images of its own, and a simulator that all gateways share."""
    simulator = {
        "image": image,
        "entrypoint": ["python", "-m", "gateway.simulator", "--host=0.0.0.0", "--port=8081"],
        "environment": {"SIMULATOR_API_KEY": ACCOUNT_KEY},
        "ports": [f"127.0.0.1:{upstream_port}:8081"],
    }
    return {"services": {"gateway": {"image": image}, "nginx": {"image": nginx}, "upstream": simulator}}


def podman_compose(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    ours = ("GATEWAY_", "GMI_", "POSTGRES_", "REDIS_", "PUBLISHED_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "podman_compose", *words]
    return subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)


def node_of(reply: requests.Response) -> str:
    """Which process answered: the part of the request id that all its calls share."""
    return reply.headers.get("x-gateway-request-id", "")[:20]


def require(is_there: bool, what: str) -> None:
    if not is_there:
        is_missing(f"docker-compose.yml is not brought up: {what}")


def is_there(name: str) -> bool:
    known = podman("image", "exists", name, check=False).returncode == 0
    return known or podman("pull", "--quiet", name, check=False).returncode == 0


def nginx_image() -> str:
    """The image that the file names, or a stand-in for it."""
    name: str = SERVICES["nginx"]["image"]
    if is_there(name):
        return name
    stand_in = f"localhost/gmi-gateway-test-{name}"
    if podman("image", "exists", stand_in, check=False).returncode:
        podman("build", "--network=host", f"--tag={stand_in}", "--file=-", input=NGINX_STAND_IN)
    return stand_in


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    require(importlib.util.find_spec("podman_compose") is not None, "podman-compose is not installed")
    for service in ("redis", "postgres"):
        name = SERVICES[service]["image"]
        require(is_there(name), f"the image {name} can be neither pulled nor found")
    with built_image(tmp_path_factory.mktemp("context")) as image:
        deployment = Deployment(tmp_path_factory.mktemp("compose"), image, nginx_image())
        try:
            deployment.up()
            yield deployment
        finally:
            deployment.down()


def test_without_a_password_nothing_starts_and_the_message_says_where_to_set_it(tmp_path: Path) -> None:
    require(importlib.util.find_spec("podman_compose") is not None, "podman-compose is not installed")
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    done = podman_compose("config", folder=tmp_path)
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr
    assert "set it in .env, once; docs/deploy.md says how" in done.stderr


def test_of_nodes_that_start_at_once_one_prints_the_admin_key(deployment: Deployment) -> None:
    assert len(deployment.admin_keys) == 1
    me = deployment.admin.get(f"{deployment.url}/admin/v1/me", timeout=10)
    assert me.json()["key"]["name"] == "admin"


@pytest.mark.parametrize("service", ["nginx", "gateway", "redis", "postgres"])
def test_a_service_is_healthy_by_its_own_check(deployment: Deployment, service: str) -> None:
    for name in deployment.containers(service):
        checked = podman("healthcheck", "run", name, check=False)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_key_that_is_made_through_one_node_holds_on_all_and_is_dead_on_all_a_second_after(
    deployment: Deployment,
) -> None:
    key_id, secret = deployment.new_key()
    session = deployment.session(secret)
    answered = Counter((reply.status_code, node_of(reply)) for reply in (deployment.chat(session) for _ in range(12)))
    assert {status for status, _ in answered} == {200}
    assert len(answered) == NODES
    revoked = deployment.admin.post(f"{deployment.url}/admin/v1/keys/{key_id}/revoke", timeout=10)
    assert revoked.status_code == 200, revoked.text
    revoked_at = last_good_at = time.monotonic()
    refused: list[str] = []
    while len(refused) < 4 * NODES:
        sent_at, reply = time.monotonic(), deployment.chat(session)
        if reply.status_code == 401:
            refused.append(node_of(reply))
        else:
            refused, last_good_at = [], sent_at
        assert last_good_at - revoked_at <= 1
    assert len(set(refused)) == NODES


def test_a_command_in_one_container_makes_a_key_for_all(deployment: Deployment) -> None:
    words = ("keys", "create", "--team=admins", "--name=another", "--role=admin", "--json")
    made = deployment.compose("exec", "-T", "gateway", "gmi-gateway", *words)
    assert made.returncode == 0, made.stdout + made.stderr
    session = deployment.session(json.loads(made.stdout)["secret"])
    assert {deployment.chat(session).status_code for _ in range(2 * NODES)} == {200}


def test_an_event_passes_nginx_although_nothing_follows_it(deployment: Deployment) -> None:
    with deployment.stream(deployment.admin, "stall=700") as reply:
        lines = reply.iter_lines()  # a name, since requests hangs up when nobody holds them
        assert next(lines).startswith(b"data: ")
        assert deployment.upstream_sees(open=1)


def test_a_stream_passes_nginx_whole_and_as_one_that_goes_on(deployment: Deployment) -> None:
    reply = deployment.stream(deployment.admin, "chunks=30; chunk-delay=0.1")
    events = filter(None, reply.iter_lines())
    assert next(events).startswith(b"data: ")
    assert deployment.upstream_sees(open=1)
    assert list(events)[-1] == b"data: [DONE]"
    assert reply.headers["x-accel-buffering"] == "no"
    assert reply.headers["connection"] == "keep-alive"


def test_a_client_that_leaves_is_gone_upstream_too(deployment: Deployment) -> None:
    reply = deployment.stream(deployment.admin, "chunks=600; chunk-delay=0.1")
    lines = reply.iter_lines()
    assert next(lines).startswith(b"data: ")
    assert deployment.upstream_sees(open=1)
    reply.close()
    assert deployment.upstream_sees(open=0)
    assert deployment.seen()[-1]["ended"] == "client left"


def test_a_client_cannot_say_where_it_comes_from(deployment: Deployment) -> None:
    _, secret = deployment.new_key(grants={"networks": ["203.0.113.0/24"]})
    session = deployment.session(secret)
    session.headers["X-Forwarded-For"] = "203.0.113.7"
    reply = deployment.chat(session)
    assert reply.status_code == 403
    assert reply.json()["error"]["code"] == "network_not_allowed"


def test_path_and_a_large_body_reach_upstream_as_they_are(deployment: Deployment) -> None:
    admin = deployment.admin
    assert admin.get(f"{deployment.url}/v1/models/openai%2Fgpt-5.2?a=%2F%20", timeout=10).status_code == 200
    body = json.dumps({**CHAT, "metadata": {"filler": "x" * 3_000_000}})
    headers = {"Content-Type": "application/json"}
    sent = admin.post(f"{deployment.url}/v1/chat/completions", data=body, headers=headers, timeout=30)
    assert sent.status_code == 200, sent.text
    models, chat = deployment.seen()[-2:]
    assert models["target"] == "/v1/models/openai%2Fgpt-5.2?a=%2F%20"
    assert chat["body_bytes"] == len(body)


def test_a_websocket_handshake_is_answered_by_the_gateway(deployment: Deployment) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket"}
    reply = deployment.admin.get(f"{deployment.url}/v1/responses", headers=headers, timeout=10)
    assert reply.status_code == 426
    assert reply.json()["error"]["code"] == "websocket_not_supported"


@pytest.mark.parametrize("request_line", ["GET /v1/%00 HTTP/1.1", "GET /../v1/models HTTP/1.1", "NONSENSE"])
def test_what_nginx_itself_cannot_read_gets_an_error_in_the_apis_form(
    deployment: Deployment, request_line: str
) -> None:
    port = int(deployment.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(f"{request_line}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert b" 400 " in reply.split(b"\r\n", 1)[0]
    error = json.loads(reply.partition(b"\r\n\r\n")[2])["error"]
    assert set(error) == {"message", "type", "param", "code"}


def test_limits_hold_across_the_nodes_and_outlast_a_restart_of_everything(deployment: Deployment) -> None:
    """By the hour: a call a minute would come back while the test runs."""
    _, secret = deployment.new_key(limits={"requests_per_hour": 20})
    session = deployment.session(secret)
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: deployment.chat(session), range(60)))
    answers = Counter(reply.status_code for reply in replies)
    assert answers == {200: 20, 429: 40}, deployment.logs("gateway")
    assert len({node_of(reply) for reply in replies}) == NODES
    deployment.compose("stop")
    deployment.up()
    assert deployment.chat(session).status_code == 429, deployment.logs("gateway")
    assert deployment.logs("gateway").count("Admin key") == 1


def test_a_stop_lets_open_streams_end(deployment: Deployment) -> None:
    reply = deployment.stream(deployment.admin, "chunks=40; chunk-delay=0.1")
    lines = reply.iter_lines()
    next(lines)
    stop = threading.Thread(target=deployment.compose, args=("stop", "nginx", "gateway"))
    stop.start()
    assert [line for line in lines if line][-1] == b"data: [DONE]"
    reply.close()
    stop.join()
    for name in (*deployment.containers("nginx"), *deployment.containers("gateway")):
        assert podman("inspect", "--format={{.State.ExitCode}}", name).stdout.strip() == "0", deployment.log(name)


def test_users_of_an_sdk_notice_nothing_of_a_node_that_is_killed(deployment: Deployment) -> None:
    """A call that was sent to it is not sent again by nginx, since it may have been processed; the SDK's to decide."""
    deployment.up()
    podman("kill", "--signal=KILL", deployment.containers("gateway")[1])
    with OpenAI(base_url=f"{deployment.url}/v1", api_key=deployment.admin_keys[0]) as client:
        for _ in range(30):
            completion = client.chat.completions.create(
                model="openai/gpt-5.2", messages=[{"role": "user", "content": "Hi"}]
            )
            assert completion.choices[0].finish_reason == "stop"
