"""docker-compose.yml, brought up for real: three gateways behind nginx, on one PostgreSQL and one Redis, and watched.

Needs podman and podman-compose. Without them these tests are skipped, except in CI, where that is a failure. The images
are pulled, or are stand-ins where no registry can be reached. All tests share one deployment, which takes its time, so
they are in one file. What the files themselves say is for test_compose_files.py.
"""

import importlib.util
import json
import secrets
import shutil
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
import yaml
from openai import OpenAI

from tests.deployment import CHAT, NODES, SERVICES, WATCHED, Deployment, node_of, podman_compose
from tests.prometheus import Prometheus, comes_to
from tests.stand_ins import is_there
from tests.support.missing import is_missing
from tests.test_container import ROOT, built_image, podman
from tests.test_dashboards import DASHBOARDS, RULES, dashboard, queries_of


def require(is_there: bool, what: str) -> None:
    if not is_there:
        is_missing(f"docker-compose.yml is not brought up: {what}")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    require(importlib.util.find_spec("podman_compose") is not None, "podman-compose is not installed")
    for service in ("redis", "postgres"):
        name = SERVICES[service]["image"]
        require(is_there(name), f"the image {name} can be neither pulled nor found")
    with built_image(tmp_path_factory.mktemp("context")) as image:
        deployment = Deployment(tmp_path_factory.mktemp("compose"), image)
        try:
            deployment.up()
            yield deployment
        finally:
            deployment.down()


@pytest.fixture(scope="module")
def prometheus(deployment: Deployment) -> Prometheus:
    """With Grafana beside it."""
    deployment.watch()
    return Prometheus(deployment.prometheus_url)


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


def test_prometheus_reads_every_gateway(deployment: Deployment, prometheus: Prometheus) -> None:
    addresses = {f"{deployment.address(name)}:8080": "" for name in deployment.containers("gateway")}
    assert len(addresses) == NODES
    assert comes_to(prometheus.gateways, lambda found: found == addresses) == addresses
    assert prometheus.value('sum(up{job="gmi-gateway"})') == NODES


def test_prometheus_watches_over_the_gateways_by_the_rules(prometheus: Prometheus) -> None:
    rules = comes_to(prometheus.rules, lambda found: all(rule["health"] != "unknown" for rule in found.values()))
    assert set(rules) == {rule["alert"] for rule in RULES}
    assert {name: rule.get("lastError") for name, rule in rules.items() if rule["health"] != "ok"} == {}
    assert rules["GatewayDown"]["state"] == rules["DatabaseAway"]["state"] == "inactive"


def test_calls_through_nginx_are_counted_once_each_over_all_gateways(
    deployment: Deployment, prometheus: Prometheus
) -> None:
    _, secret = deployment.new_key()
    session = deployment.session(secret)
    nodes = {node_of(deployment.chat(session)) for _ in range(4 * NODES)}
    assert len(nodes) == NODES
    team = session.get(f"{deployment.url}/admin/v1/me", timeout=10).json()["team"]["name"]
    counted = f'gmi_gateway_requests_total{{team="{team}", outcome="done"}}'
    assert comes_to(lambda: prometheus.value(f"sum({counted})"), lambda found: found >= 4 * NODES) == 4 * NODES
    assert prometheus.value(f"count({counted})") == NODES


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_answers_every_query_of_a_dashboard(prometheus: Prometheus, path: Path) -> None:
    """Of several gateways: what fits together for one may not for three."""
    for query in queries_of(dashboard(path)):
        if not query.startswith("label_values"):
            prometheus.series(as_grafana_sends(query))


def as_grafana_sends(query: str) -> str:
    """With everything chosen."""
    for variable, value in (("$__rate_interval", "1m"), ("$__range", "6h"), ("$model", ".*"), ("$team", ".*")):
        query = query.replace(variable, value)
    assert "$" not in query
    return query


@pytest.mark.usefixtures("prometheus")
def test_grafana_reaches_its_data_source_and_may_read_its_dashboards(deployment: Deployment) -> None:
    (grafana,) = deployment.containers("grafana")
    provisioning = "/etc/grafana/provisioning"
    shown = podman("exec", grafana, "cat", f"{provisioning}/datasources/prometheus.yml").stdout
    (source,) = yaml.safe_load(shown)["datasources"]
    query = f"{source['url']}/api/v1/query?query=count(gmi_gateway_build_info)"
    found = json.loads(podman("exec", grafana, "wget", "--quiet", "--output-document=-", query).stdout)
    assert found["data"]["result"][0]["value"][1] == str(NODES)
    shown = podman("exec", grafana, "cat", f"{provisioning}/dashboards/gateway.yml").stdout
    (provider,) = yaml.safe_load(shown)["providers"]
    for path in DASHBOARDS:
        assert podman("exec", grafana, "cat", f"{provider['options']['path']}/{path.name}").stdout == path.read_text()


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


def test_metrics_are_for_prometheus_alone_where_they_have_an_address_of_their_own_and_a_token(
    deployment: Deployment, prometheus: Prometheus
) -> None:
    """As docs/deploy.md says it is done."""
    file = "config/prometheus/prometheus.yml"
    deployment.edit(file, "port: 8080", "port: 9100")
    deployment.edit(file, "#authorization:", "authorization:")
    deployment.edit(file, "#  credentials_file:", "  credentials_file:")
    deployment.configure(GATEWAY_METRICS_LISTEN="0.0.0.0:9100", GATEWAY_METRICS_TOKEN=secrets.token_hex(24))
    deployment.compose(*WATCHED, "up", "--detach", "--no-deps", "--force-recreate", "gateway", "prometheus")
    deployment.up()
    deployment.watch()
    addresses = {f"{deployment.address(name)}:9100": "" for name in deployment.containers("gateway")}
    assert comes_to(prometheus.gateways, lambda found: found == addresses) == addresses
    (grafana,) = deployment.containers("grafana")
    read = podman("exec", grafana, "wget", "--output-document=-", "http://gateway:9100/metrics", check=False)
    assert "401 Unauthorized" in read.stderr
    assert requests.get(f"{deployment.url}/metrics", timeout=10).status_code == 404


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
