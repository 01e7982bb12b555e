"""The image, built from the Dockerfile and run for real.

Needs podman. Without it these tests are skipped, except in CI, where that is
a failure: an image that nobody has built is not known to work.
"""

import json
import os
import re
import secrets
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from gateway.simulator import running_simulator
from tests.support.missing import is_missing
from tests.support.ports import free_port

ROOT = Path(__file__).parents[1]
ACCOUNT_KEY = "sk-canary-8f14e45fceea167a5a36dedd4bea2543"
VIRTUAL_KEY = "sk-gw-only-for-this-test-0123456789"
KEYS = json.dumps([{"name": "container", "team": "tests", "secret": VIRTUAL_KEY}])
UID = 10001

# What docker-compose.yml asks for; the image must work under it.
HARDENED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=ALL", "--security-opt=no-new-privileges")


def podman(*arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["podman", "--log-level=error", *arguments],
        check=check,
        text=True,
        capture_output=True,
        **options,
    )


def build_context(folder: Path) -> None:
    """A copy of the repository's files, with secrets lying about as they do in a developer's clone."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listing.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    for stray in (".env", "gmi_api_key", "secrets/gmi_api_key", "data/gmi_api_key"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text(f"GMI_API_KEY={ACCOUNT_KEY}\n")


@contextmanager
def built_image(context: Path, extras: str | None = None) -> Iterator[str]:
    """The name of an image that was built from what is in the tree now; `context` is an empty folder."""
    if shutil.which("podman") is None:
        is_missing("podman is not installed: the image is neither built nor run")
    name = f"localhost/gmi-gateway-test:{secrets.token_hex(6)}"
    build_context(context)
    environment = {**os.environ, "GMI_API_KEY": ACCOUNT_KEY}
    # The docker format, since OCI's has no place for a health check.
    built = podman(
        "build",
        "--network=host",
        "--format=docker",
        f"--tag={name}",
        *(() if extras is None else (f"--build-arg=EXTRAS={extras}",)),
        str(context),
        check=False,
        env=environment,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    yield name
    podman("rmi", "--force", name)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with built_image(tmp_path_factory.mktemp("context")) as name:
        yield name


@dataclass(frozen=True)
class Container:
    """A running gateway: its name for podman, and where it listens."""

    name: str
    base_url: str
    process: subprocess.Popen[bytes]
    log: Path

    def session(self, key: str = VIRTUAL_KEY) -> requests.Session:
        """A client that waits for the port to open, and gives up after about ten seconds; to be closed."""
        session = requests.Session()
        session.mount("http://", HTTPAdapter(max_retries=Retry(60, backoff_factor=0.1, backoff_max=0.2)))
        session.headers["Authorization"] = f"Bearer {key}"
        return session

    def get(self, path: str, key: str = VIRTUAL_KEY) -> requests.Response:
        with self.session(key) as session:
            return session.get(f"{self.base_url}{path}", timeout=5)


Start = Callable[..., Container]


@pytest.fixture
def start(image: str, tmp_path: Path) -> Iterator[Start]:
    """Start containers with the given options of `podman run`; what is left of them at the end is removed."""
    with ExitStack() as running:

        def start_one(*options: str) -> Container:
            container = run(image, free_port(), tmp_path, options)
            running.callback(remove, container)
            return container

        yield start_one


def run(image: str, port: int, folder: Path, options: tuple[str, ...]) -> Container:
    name = f"gmi-gateway-test-{secrets.token_hex(6)}"
    log = folder / f"{name}.log"
    command = ["podman", "--log-level=error", "run", "--rm", f"--name={name}", "--network=host", *HARDENED]
    command += [f"--env=GATEWAY_SERVER_PORT={port}", *options, image]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    return Container(name, f"http://127.0.0.1:{port}", process, log)


def remove(container: Container) -> None:
    podman("rm", "--force", "--time=0", container.name, check=False)
    container.process.wait(timeout=30)


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"gmi-gateway-test-{secrets.token_hex(6)}"
    podman("volume", "create", name)
    yield name
    podman("volume", "rm", "--force", name, check=False)


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    file = tmp_path / "gmi_api_key"
    file.write_text(f"{ACCOUNT_KEY}\n")
    file.chmod(0o444)
    return file


@pytest.fixture
def gateway(start: Start, secret_file: Path) -> Iterator[Container]:
    """A gateway in a container, in front of a simulator on the host that takes the account's key alone."""
    with running_simulator(api_key=ACCOUNT_KEY) as upstream:
        container = start(
            f"--volume={secret_file}:/run/secrets/gmi_api_key:ro",
            "--env=GMI_API_KEY_FILE=/run/secrets/gmi_api_key",
            f"--env=GMI_BASE_URL={upstream}",
            f"--env=GATEWAY_KEYS={KEYS}",
        )
        wait_until_it_listens(container)
        yield container


def wait_until_it_listens(container: Container) -> None:
    try:
        container.get("/healthz")
    except requests.ConnectionError:
        pytest.fail(f"the container does not listen; it wrote:\n{container.log.read_text()}")


def chat(container: Container, **members: object) -> requests.Response:
    body = {"model": "openai/gpt-5.2", "messages": [{"role": "user", "content": "Hello!"}], **members}
    with container.session() as session:
        return session.post(f"{container.base_url}/v1/chat/completions", json=body, timeout=10)


def test_the_container_answers_a_chat_call_with_the_accounts_key_from_a_file(gateway: Container) -> None:
    reply = chat(gateway)
    assert reply.status_code == 200, reply.text
    assert reply.json()["choices"][0]["message"]["content"].startswith("[simulated]")


def test_the_container_streams(gateway: Container) -> None:
    reply = chat(gateway, stream=True)
    assert reply.status_code == 200, reply.text
    assert reply.text.endswith("data: [DONE]\n\n")


def test_the_container_is_healthy_by_its_own_check(gateway: Container) -> None:
    assert gateway.get("/healthz").status_code == 200
    checked = podman("healthcheck", "run", gateway.name, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_health_check_fails_where_nothing_listens(gateway: Container) -> None:
    (inspected,) = json.loads(podman("inspect", gateway.name).stdout)
    check = inspected["Config"]["Healthcheck"]["Test"]
    assert check[0] == "CMD"
    elsewhere = podman("exec", f"--env=GATEWAY_SERVER_PORT={free_port()}", gateway.name, *check[1:], check=False)
    assert elsewhere.returncode != 0


def test_the_process_is_an_ordinary_user_who_can_write_to_data_only(gateway: Container) -> None:
    status = podman("exec", gateway.name, "cat", "/proc/1/status").stdout
    assert f"\nUid:\t{UID}\t{UID}\t{UID}\t{UID}\n" in status
    assert "\nCapEff:\t0000000000000000\n" in status
    assert podman("exec", gateway.name, "touch", "/data/state").returncode == 0
    assert podman("exec", gateway.name, "touch", "/opt/gmi-gateway/state", check=False).returncode != 0


def test_sigterm_ends_the_container_with_exit_0_within_seconds(gateway: Container) -> None:
    assert chat(gateway).status_code == 200
    podman("kill", "--signal=TERM", gateway.name)
    assert gateway.process.wait(timeout=10) == 0


def test_the_first_start_prints_an_admin_key_once_and_it_outlives_the_container(start: Start, volume: str) -> None:
    first = start(f"--env=GMI_API_KEY={ACCOUNT_KEY}", f"--volume={volume}:/data")
    wait_until_it_listens(first)
    (admin_key,) = set(re.findall(r"sk-gw-[0-9A-Za-z]{38}", first.log.read_text()))
    podman("kill", "--signal=TERM", first.name)
    assert first.process.wait(timeout=10) == 0
    second = start(f"--env=GMI_API_KEY={ACCOUNT_KEY}", f"--volume={volume}:/data")
    wait_until_it_listens(second)
    reply = second.get("/admin/v1/me", admin_key)
    assert reply.status_code == 200, reply.text
    assert "sk-gw-" not in second.log.read_text()
    for container in (first, second):
        assert ACCOUNT_KEY not in container.log.read_text()
        assert "Traceback" not in container.log.read_text()


def test_commands_in_the_container_make_a_key_that_its_gateway_takes(gateway: Container) -> None:
    podman("exec", gateway.name, "gmi-gateway", "teams", "create", "--name=engines")
    words = ("keys", "create", "--team=engines", "--name=ada", "--json")
    made = json.loads(podman("exec", gateway.name, "gmi-gateway", *words).stdout)
    reply = gateway.get("/v1/models", made["secret"])
    assert reply.status_code == 200, reply.text


def test_without_a_folder_to_write_to_the_container_says_so_and_does_not_listen(start: Start) -> None:
    container = start(f"--env=GMI_API_KEY={ACCOUNT_KEY}", "--env=GATEWAY_SERVER_STATE_DIR=/etc/gmi-gateway")
    assert container.process.wait(timeout=30) == 2
    said = container.log.read_text()
    assert "GATEWAY_SERVER_STATE_DIR: server.state_dir: cannot be written" in said
    assert "Traceback" not in said
    assert ACCOUNT_KEY not in said


def test_the_state_is_the_users_own(gateway: Container) -> None:
    mode = podman("exec", gateway.name, "stat", "--format=%a %u", "/data/gateway.db").stdout.split()
    assert mode == ["600", str(UID)]


def test_a_secret_in_the_clone_or_the_environment_stays_out_of_the_image(image: str, tmp_path: Path) -> None:
    history = podman("history", "--no-trunc", "--format=json", image).stdout
    assert ACCOUNT_KEY not in history + podman("inspect", image).stdout
    archive = tmp_path / "image.tar"
    podman("save", "--quiet", f"--output={archive}", image)
    found = subprocess.run(["grep", "--count", "--text", ACCOUNT_KEY, archive], check=False, capture_output=True)
    assert found.stdout.strip() == b"0"


CAN_TRACE = ("-c", "from gateway.observe.traces import otlp")


def test_an_image_that_was_asked_for_it_can_trace(tmp_path: Path) -> None:
    with built_image(tmp_path, extras="otel") as image:
        done = podman("run", "--rm", "--network=host", "--entrypoint=python", image, *CAN_TRACE, check=False)
    assert done.returncode == 0, done.stderr


def test_an_image_holds_no_more_than_was_asked_for(image: str) -> None:
    done = podman("run", "--rm", "--network=host", "--entrypoint=python", image, *CAN_TRACE, check=False)
    assert "No module named 'opentelemetry." in done.stderr


def test_each_extra_can_be_asked_for_and_is_locked_with_what_an_image_without_it_has() -> None:
    package = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "-r requirements/${EXTRAS:-runtime}.txt" in dockerfile
    (copied,) = re.findall(r"^COPY (requirements/.*) requirements/$", dockerfile, re.MULTILINE)
    assert "fastapi" in locked("runtime")
    for extra in package["optional-dependencies"]:
        assert f"requirements/{extra}.txt" in copied.split()
        assert locked("runtime").items() <= locked(extra).items()


def locked(name: str) -> dict[str, str]:
    """The packages of a lock file, each with its version and hashes."""
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==(.*\n(?:    --hash=.*\n)+)", text, re.MULTILINE))


def test_compose_asks_for_no_more_than_these_tests_grant() -> None:
    """Else a container could work here and not as docker-compose.yml starts it."""
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["gateway"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
