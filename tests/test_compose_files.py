"""What docker-compose.yml and config/nginx.conf say, held against the gateway's settings. Nothing runs here."""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from gateway.configuration.environment import is_ours
from gateway.settings import Server, Settings

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "config"
FILE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, Any] = yaml.safe_load(FILE)["services"]
NGINX = (CONFIG / "nginx.conf").read_text(encoding="utf-8")


def seconds(text: str) -> float:
    """`90`, `40s` or `1h`, as Compose and nginx write times."""
    number, unit = re.fullmatch(r"(\d+)([smh]?)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"": 1, "s": 1, "m": 60, "h": 3600}[unit]


def directive(name: str, block: str = NGINX) -> str:
    """The value of nginx's directive `name`, which stands in `block` once."""
    (value,) = re.findall(rf"^\s*{name} ([^;]+);", block, re.MULTILINE)
    return str(value)


def test_only_nginx_is_published_and_whoever_watches_and_that_to_this_machine_alone() -> None:
    assert {name: service["ports"] for name, service in SERVICES.items() if "ports" in service} == {
        "nginx": ["127.0.0.1:${PUBLISHED_PORT:-8080}:8080"],
        "prometheus": ["127.0.0.1:${PROMETHEUS_PORT:-9090}:9090"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }


def test_prometheus_and_grafana_come_when_they_are_asked_for() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "prometheus": ["observe"],
        "grafana": ["observe"],
    }
    variables = set(re.findall(r"(?<!\$)\$\{(\w+):\?", FILE))
    assert variables == {"POSTGRES_PASSWORD"}, "Compose asks for these whether or not the profile is wanted"


def test_grafana_does_not_start_with_a_password_that_everybody_knows() -> None:
    grafana = SERVICES["grafana"]
    assert grafana["environment"]["GF_SECURITY_ADMIN_PASSWORD"] == "${GRAFANA_ADMIN_PASSWORD:-}"
    *command, script = grafana["entrypoint"]
    script = script.replace("$$", "$").replace("exec /run.sh", "echo started")
    for password, status in (("", 2), ("chosen", 0)):
        environment = {"GF_SECURITY_ADMIN_PASSWORD": password}
        done = subprocess.run([*command, script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status
        assert ("started" in done.stdout) == bool(password)


def test_prometheus_asks_every_gateway_where_it_listens() -> None:
    config = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    (job, _) = config["scrape_configs"]
    (discovery,) = job["dns_sd_configs"]
    assert (discovery["names"], discovery["type"], discovery["port"]) == (["gateway"], "A", Server().port)
    assert "networks" not in SERVICES["prometheus"], "the gateways are on the default network"
    assert "default" in SERVICES["gateway"]["networks"]


def test_grafana_knows_how_often_prometheus_reads() -> None:
    """`$__rate_interval` comes from it: were it less, graphs of rates would have holes."""
    interval = yaml.safe_load((CONFIG / "prometheus" / "prometheus.yml").read_text("utf-8"))["global"][
        "scrape_interval"
    ]
    file = CONFIG / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(file.read_text("utf-8"))["datasources"]
    assert source["jsonData"]["timeInterval"] == interval


def test_grafana_finds_its_data_source_and_dashboards() -> None:
    provisioning = CONFIG / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text("utf-8"))["datasources"]
    assert (source["type"], source["url"]) == ("prometheus", "http://prometheus:9090")
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "gateway.yml").read_text("utf-8"))["providers"]
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["./config/grafana/dashboards"] == provider["options"]["path"]
    assert mounts["./config/grafana/provisioning"] == "/etc/grafana/provisioning"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (CONFIG / "grafana" / "dashboards" / Path(home).name).is_file()


def test_the_stores_are_on_a_network_that_only_the_gateways_share() -> None:
    members = {name for name, service in SERVICES.items() if "stores" in service.get("networks", ())}
    assert members == {"gateway", "redis", "postgres"}
    assert SERVICES["redis"]["networks"] == SERVICES["postgres"]["networks"] == ["stores"]


def test_every_service_restarts_and_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "unless-stopped", name
        assert "healthcheck" in service or name == "gateway", name
    assert "HEALTHCHECK" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    waits_for = {name: how["condition"] for name, how in SERVICES["gateway"]["depends_on"].items()}
    assert waits_for == {"postgres": "service_healthy", "redis": "service_healthy"}


def test_the_image_is_built_with_the_extras_that_the_environment_names() -> None:
    assert SERVICES["gateway"]["build"] == {"context": ".", "args": {"EXTRAS": "${GATEWAY_EXTRAS:-}"}}
    assert "\nARG EXTRAS=\n" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert not is_ours("GATEWAY_EXTRAS", "otel"), ".env is the gateways' environment too"


def test_redis_keeps_and_never_evicts_what_was_used() -> None:
    assert "--appendonly yes" in SERVICES["redis"]["command"]
    assert "--maxmemory-policy noeviction" in SERVICES["redis"]["command"]


def test_nginx_is_more_patient_than_the_gateway() -> None:
    assert seconds(directive("proxy_read_timeout")) > Settings().upstream.total_timeout_s
    assert seconds(directive("send_timeout")) > Server().send_timeout_s
    assert seconds(directive("client_body_timeout")) > Server().request_timeout_s
    assert directive("client_max_body_size") == "0"


def test_nginx_holds_nothing_back() -> None:
    assert directive("proxy_buffering") == directive("proxy_request_buffering") == "off"
    assert "gzip" not in NGINX


def test_nginx_closes_idle_connections_before_the_gateway_does() -> None:
    upstream = NGINX[NGINX.index("upstream gateways") : NGINX.index("map ")]
    assert seconds(directive("keepalive_timeout", upstream)) < Server().keep_alive_s


def test_nginx_sends_no_call_twice_that_a_gateway_may_have_processed() -> None:
    assert directive("proxy_next_upstream") == "error timeout"


def test_nothing_is_killed_before_the_gateways_have_drained() -> None:
    assert seconds(SERVICES["gateway"]["stop_grace_period"]) > Server().drain_s + 5
    assert seconds(SERVICES["nginx"]["stop_grace_period"]) >= seconds(SERVICES["gateway"]["stop_grace_period"])
