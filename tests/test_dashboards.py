"""Metrics, dashboards and alert rules fit together: Prometheus' own tools take them, and no query asks for what is not.

`promtool` comes with Debian's package `prometheus`; where it is missing these tests are skipped, but fail in CI.
"""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.http.admin_server import Client, made
from tests.limits.servers import shared_server
from tests.support.gateway import RunningGateway, running_gateway
from tests.support.missing import is_missing
from tests.support.wire import Fin, Wait, WireUpstream, reply, sse

CONFIG = Path(__file__).parents[1] / "config"
PROMETHEUS = CONFIG / "prometheus"
DASHBOARDS = sorted((CONFIG / "grafana" / "dashboards").glob("*.json"))
RULES = [
    rule for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text("utf-8"))["groups"] for rule in group["rules"]
]

USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10, "prompt_tokens_details": {"cached_tokens": 4}}
OK = reply(200, [(b"content-type", b"application/json")], json.dumps({"id": "x", "usage": USAGE}).encode())
PRICES = """
unit: microusd_per_million_tokens
models: {priced: {looked_up: 2026-11-22, input: 1_000_000, output: 1_000_000}}
"""
LIMITS = {"each_key": {"requests_per_day": 4}, "shadow": ["requests"]}

Labels = dict[str, set[str]]
"""The labels of each metric, by the names that queries use."""

_METRIC = re.compile(r"\b(?:gmi_gateway|process)_\w+")
_WORD = re.compile(r"[a-zA-Z_]\w*")
_GROUPING = re.compile(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR = re.compile(r"(\b[a-zA-Z_]\w*)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
_BY_PROMETHEUS = {"job", "instance"}


def promtool(*words: str, stdin: str = "") -> str:
    """What it says; fails with that where it is not content."""
    done = subprocess.run([_promtool(), *words], input=stdin, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def _promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        is_missing("promtool is missing: apt-get install prometheus")
    return found


async def _traffic(folder: Path) -> str:
    """The page of a gateway that has seen a call of each kind."""
    (folder / "prices.yaml").write_text(PRICES, "utf-8")
    go_on = asyncio.Event()
    events = sse(["{}", "{}", "[DONE]"])
    stream = [events[0], events[1], Wait(go_on), *events[2:]]
    async with WireUpstream(OK, stream, reply(500, [], b"{}"), [Fin()], OK) as upstream:
        with running_gateway(
            f"{upstream.url}/v1",
            limits=LIMITS,
            redis={"url": shared_server("valkey").url},
            prices={"file": str(folder / "prices.yaml")},
            alerts={"webhook_url": f"{upstream.url}/hook", "webhook_secret": "a-secret-for-webhooks"},
            traces={"endpoint": f"{upstream.url}/traces", "sample_ratio": 0.0},
        ) as gateway:
            secret = await asyncio.to_thread(_key_with_budget, gateway)
            async with httpx2.AsyncClient(headers={"authorization": f"Bearer {secret}"}, trust_env=False) as client:
                await _calls(client, f"{gateway.api}/chat/completions", go_on)
                await gateway.recorded(6)
                async with asyncio.timeout(20):
                    while "\ngmi_gateway_budget_used_ratio{" not in (text := await _page(client, gateway)):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)  # nobody tells when spending is written, which is once a second
                return text


async def _page(client: httpx2.AsyncClient, gateway: RunningGateway) -> str:
    return (await client.get(f"{gateway.url}/metrics")).text


def _key_with_budget(gateway: RunningGateway) -> str:
    with closing(Client(gateway.url, gateway.admin_secret)) as admin:
        made(admin.post("/teams", {"name": "motors", "budgets": {"month_microusd": 1_000_000_000}}))
        return str(made(admin.post("/keys", {"team": "motors", "name": "bob"}))["secret"])


async def _calls(client: httpx2.AsyncClient, url: str, go_on: asyncio.Event) -> None:
    body = {"model": "priced", "messages": []}
    await client.post(url, json=body)
    async with client.stream("POST", url, json={**body, "stream": True}) as answer:
        async for _ in answer.aiter_raw():
            go_on.set()
    for model in ("priced", "priced", "unpriced"):
        await client.post(url, json={**body, "model": model})
    await client.post(url, json=body, headers={"authorization": "Bearer nobody"})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    return asyncio.run(_traffic(tmp_path_factory.mktemp("traffic")))


@pytest.fixture(scope="module")
def known(page: str) -> Labels:
    """What the page has, and Prometheus adds."""
    found: Labels = {"up": set(_BY_PROMETHEUS)}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            found.setdefault(sample.name, set(_BY_PROMETHEUS)).update(sample.labels)
    return found


def queries_of(value: Any) -> Iterator[str]:
    """All expressions of a dashboard, and the queries of its variables."""
    if isinstance(value, dict):
        yield from (text for name, text in value.items() if name in ("expr", "definition") and isinstance(text, str))
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from queries_of(part)


def mistakes_in(query: str, known: Labels) -> list[str]:
    """What `query` names and is not there."""
    metrics = _METRIC.findall(_without_strings(query))
    found = [f"metric {name}" for name in metrics if name not in known]
    labels = set().union(*(known.get(name, set()) for name in metrics), _BY_PROMETHEUS)
    for name, matchers in _SELECTOR.findall(query):
        found += [f"{name}: label {label}" for label in _MATCHER.findall(matchers) if label not in known.get(name, ())]
    for names in _GROUPING.findall(query):
        found += [f"label {name}" for name in _WORD.findall(names) if name not in labels | {"le"}]
    if (variable := re.fullmatch(r"label_values\((\w+), (\w+)\)", query)) is not None:
        metric, label = variable.groups()
        found += [f"{metric}: label {label}"] if label not in known.get(metric, ()) else []
    return found


def _without_strings(query: str) -> str:
    return re.sub(r'"[^"]*"', '""', query)


@cache
def dashboard(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return found


def test_a_query_for_what_is_not_there_is_found(known: Labels) -> None:
    assert mistakes_in('sum by (team) (gmi_gateway_open_calls{job="x"})', known) == ["label team"]
    assert mistakes_in('gmi_gateway_requests_total{colour="red"}', known) == [
        "gmi_gateway_requests_total: label colour"
    ]
    assert mistakes_in("rate(gmi_gateway_nothing_total[5m])", known) == ["metric gmi_gateway_nothing_total"]
    assert mistakes_in("label_values(gmi_gateway_workers, team)", known) == ["gmi_gateway_workers: label team"]


def test_prometheus_finds_no_fault_with_the_page(page: str) -> None:
    assert promtool("check", "metrics", stdin=page) == ""


def test_prometheus_takes_its_configuration_and_the_rules() -> None:
    assert "SUCCESS" in promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))
    assert f"SUCCESS: {len(RULES)} rules found" in promtool("check", "rules", str(PROMETHEUS / "rules.yml"))


def test_the_rules_fire_when_they_should_and_not_before() -> None:
    promtool("test", "rules", str(Path(__file__).parent / "rules_test.yml"))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_what_is_there_and_says_what_to_do(rule: dict[str, Any], known: Labels) -> None:
    assert mistakes_in(rule["expr"], known) == []
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert set(rule["annotations"]) == {"summary", "description"}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_asks_for_what_is_there(path: Path, known: Labels) -> None:
    queries = list(queries_of(dashboard(path)))
    assert len(queries) >= 10
    assert {query: found for query in queries if (found := mistakes_in(query, known))} == {}


def test_whoever_an_alert_calls_finds_on_a_dashboard_what_it_is_about() -> None:
    assert {name for rule in RULES for name in _METRIC.findall(rule["expr"])} - shown() == set()


def test_everything_that_a_gateway_measures_of_itself_is_on_a_dashboard(page: str) -> None:
    families = [family for family in text_string_to_metric_families(page) if family.name.startswith("gmi_gateway_")]
    assert len(families) > 30
    assert [family.name for family in families if shown().isdisjoint(each.name for each in family.samples)] == []


def shown() -> set[str]:
    """The metrics that dashboards ask for."""
    return {name for path in DASHBOARDS for query in queries_of(dashboard(path)) for name in _METRIC.findall(query)}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_no_panel_covers_another(path: Path) -> None:
    cells = [cell for panel in dashboard(path)["panels"] for cell in _cells(**panel["gridPos"])]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24


def _cells(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    return [(column, row) for column in range(x, x + w) for row in range(y, y + h)]


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_prometheus_can_read_every_query_of_a_dashboard(path: Path, tmp_path: Path) -> None:
    queries = [query for query in queries_of(dashboard(path)) if not query.startswith("label_values")]
    rules = [{"record": "a", "expr": _with_values(query)} for query in queries]
    file = tmp_path / "rules.yml"
    groups = [{"name": f"g{number}", "rules": [rule]} for number, rule in enumerate(rules)]
    file.write_text(yaml.safe_dump({"groups": groups}), "utf-8")
    promtool("check", "rules", str(file))


def _with_values(query: str) -> str:
    """As Grafana sends it."""
    return query.replace("$__rate_interval", "1m").replace("$__range", "6h")


def test_dashboards_are_told_apart_and_take_the_data_source_that_is_chosen() -> None:
    uids = [dashboard(path)["uid"] for path in DASHBOARDS]
    assert sorted(uids) == ["gmi-gateway-overview", "gmi-gateway-teams", "gmi-gateway-upstream"]
    for path in DASHBOARDS:
        panels = [panel for panel in dashboard(path)["panels"] if panel["type"] != "row"]
        assert all(panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for panel in panels)
        assert len({panel["id"] for panel in dashboard(path)["panels"]}) == len(dashboard(path)["panels"])
