"""Which sources there are, and which of them wins."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import get_origin

import pytest

from gateway.configuration import Loaded, SettingsError, changes, load, load_settings
from gateway.configuration.layers import COLLECTIONS
from gateway.settings import SECTIONS, Settings
from tests.configuration.conftest import Read, Refuse

KEY = {"GMI_API_KEY": "gmi-key-of-the-account"}


def test_without_any_source_all_settings_are_the_defaults() -> None:
    assert load_settings(None, {}, {}) == Settings()


def test_config_gateway_yaml_is_read_where_it_is_there() -> None:
    Path("config").mkdir()
    Path("config/gateway.yaml").write_text("server: {port: 1234}")
    assert load_settings(None, {}, {}).server.port == 1234


def test_gateway_config_names_the_file_and_the_argument_wins_over_it() -> None:
    Path("a.yaml").write_text("server: {port: 1}")
    Path("b.yaml").write_text("server: {port: 2}")
    assert load_settings(None, {"GATEWAY_CONFIG": "a.yaml"}, {}).server.port == 1
    assert load_settings(Path("b.yaml"), {"GATEWAY_CONFIG": "a.yaml"}, {}).server.port == 2


@pytest.mark.parametrize("source", ["argument", "variable"])
def test_a_named_file_that_is_not_there_is_an_error(source: str) -> None:
    path, environ = (Path("no.yaml"), {}) if source == "argument" else (None, {"GATEWAY_CONFIG": "no.yaml"})
    with pytest.raises(SettingsError, match=r"^no\.yaml: cannot be read: No such file or directory; .*--config"):
        load_settings(path, environ, {})


def test_prices_beside_the_settings_file_are_those_that_hold_wherever_the_gateway_is_started() -> None:
    Path("etc").mkdir()
    Path("etc/gateway.yaml").write_text("server: {port: 1}")
    assert load_settings(Path("etc/gateway.yaml"), {}, {}).prices.file is None
    Path("etc/prices.yaml").write_text("")
    loaded = load(Path("etc/gateway.yaml"), {}, {})
    assert loaded.settings.prices.file == "etc/prices.yaml"
    assert "prices.file = etc/prices.yaml (beside etc/gateway.yaml)" in map(
        str, changes(loaded.settings, loaded.origins)
    )


def test_prices_that_are_named_win_over_those_beside_the_settings_file() -> None:
    Path("prices.yaml").write_text("")
    Path("gateway.yaml").write_text("prices: {file: a.yaml}")
    assert load_settings(Path("gateway.yaml"), {}, {}).prices.file == "a.yaml"
    assert load_settings(Path("gateway.yaml"), {"GATEWAY_PRICES_FILE": "b.yaml"}, {}).prices.file == "b.yaml"


def test_each_source_wins_over_the_one_below_it(read: Read) -> None:
    text = "server: {host: 127.0.0.2, port: 1, workers: 3}\nupstream: {base_url: 'http://file/v1'}"
    environ = KEY | {
        "GMI_BASE_URL": "http://gmi/v1",
        "GATEWAY_SERVER_PORT": "2",
        "GATEWAY_SERVER_WORKERS": "4",
        "GATEWAY_REDIS_URL": "redis://127.0.0.1",
    }
    settings = read(text, environ, server__port=3, server__host=None)
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.2", 3, 4)
    assert settings.upstream.base_url == "http://gmi/v1"
    environ["GATEWAY_UPSTREAM_BASE_URL"] = "http://own/v1/"
    assert read(text, environ).upstream.base_url == "http://own/v1"


def test_a_table_of_names_is_replaced_as_a_whole(read: Read) -> None:
    settings = read("models: {aliases: {a: x, b: y}}", {"GATEWAY_MODELS_ALIASES": "{c: z}"})
    assert settings.models.aliases == {"c": "z"}


def test_every_origin_is_known() -> None:
    Path("f.yaml").write_text("log:\n  calls: all\nstreams:\n\n  keepalive_s: 1\n")
    environ = KEY | {"GATEWAY_SERVER_PORT": "9000", "GATEWAY_UPSTREAM_PROXY": "http://u:p@proxy:1"}
    environ["GATEWAY_REDIS_URL"] = "redis://redis"
    loaded: Loaded = load(Path("f.yaml"), environ, {"server.workers": 2})
    assert sorted(map(str, changes(loaded.settings, loaded.origins))) == [
        "log.calls = all (f.yaml:2)",
        "redis.url = redis://redis (GATEWAY_REDIS_URL)",
        "server.port = 9000 (GATEWAY_SERVER_PORT)",
        "server.workers = 2 (--workers)",
        "streams.keepalive_s = 1.0 (f.yaml:5)",
        "upstream.api_key = ********** (GMI_API_KEY)",
        "upstream.proxy = http://***@proxy:1 (GATEWAY_UPSTREAM_PROXY)",
    ]


def test_a_url_is_shown_without_what_may_be_a_password() -> None:
    environ = {
        "GATEWAY_DATABASE_URL": "postgresql://gateway:canary@db.example:5432/gateway?password=canary",
        "GATEWAY_REDIS_URL": "rediss://:canary@redis.example/0",
        "GATEWAY_ADMIN_KEY": "canary-0123456789",
        "GATEWAY_SERVER_TRUSTED_PROXIES": "[10.0.0.0/8, '2001:db8::/32']",
    }
    loaded = load(None, environ, {})
    assert list(map(str, changes(loaded.settings, loaded.origins))) == [
        "server.trusted_proxies = 10.0.0.0/8, 2001:db8::/32 (GATEWAY_SERVER_TRUSTED_PROXIES)",
        "admin.key = ********** (GATEWAY_ADMIN_KEY)",
        "database.url = postgresql://***@db.example:5432/gateway?*** (GATEWAY_DATABASE_URL)",
        "redis.url = rediss://***@redis.example/0 (GATEWAY_REDIS_URL)",
    ]


def test_every_list_and_table_has_its_variable_in_yaml(read: Read) -> None:
    lists = {
        (section, name)
        for section in SECTIONS
        for name, field in type(getattr(Settings(), section)).model_fields.items()
        if get_origin(field.annotation) in (tuple, dict)
    }
    assert {("keys",), *lists} == set(COLLECTIONS)
    settings = read("server: {trusted_proxies: [10.0.0.1]}", {"GATEWAY_SERVER_TRUSTED_PROXIES": "[192.0.2.0/24]"})
    assert settings.server.trusted_proxies == ("192.0.2.0/24",)
    assert read("server: {trusted_proxies: [10.0.0.1]}").server.trusted_proxies == ("10.0.0.1/32",)
    assert read("server:\n  trusted_proxies:\n").server.trusted_proxies == ()


def test_every_scalar_setting_has_its_variable(read: Read) -> None:
    environ = {
        "GATEWAY_SERVER_MAX_BODY_BYTES": "5",
        "GATEWAY_STREAMS_INCLUDE_USAGE": "off",
        "GATEWAY_LOG_CALLS": "off",
        "GATEWAY_UPSTREAM_FIRST_BYTE_TIMEOUT_S": "1.5",
        "GATEWAY_SERVER_STATE_DIR": "state",
        "GATEWAY_ACCESS_NAMESPACE_KEYS": "no",
        "GATEWAY_ADMIN_ENABLED": "false",
        "GATEWAY_DATABASE_POOL_SIZE": "7",
    }
    settings = read("", environ)
    assert settings.server.max_body_bytes == 5
    assert settings.streams.include_usage is False
    assert settings.log.calls == "off"
    assert settings.upstream.first_byte_timeout_s == 1.5
    assert settings.server.state_dir == "state"
    assert settings.access.namespace_keys is False
    assert settings.admin.enabled is False
    assert settings.database.pool_size == 7


def test_a_key_has_its_role_grants_and_end_in_file_and_variable(read: Read) -> None:
    text = """[{name: a, team: t, secret: 0123456789abcdef, role: team_admin, models: [openai/*, gpt-5.2],
      routes: [chat, responses], networks: [10.0.0.0/8, 2001:db8::1], expires_at: 2027-01-31T18:00:00+01:00}]"""
    for settings in (read(f"keys: {text}"), read("", {"GATEWAY_KEYS": text})):
        (key,) = settings.keys
        assert (key.role, key.models, key.routes) == ("team_admin", ("openai/*", "gpt-5.2"), ("chat", "responses"))
        assert key.networks == ("10.0.0.0/8", "2001:db8::1/128")
        assert key.expires_at == datetime(2027, 1, 31, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        '[{"name": "ann", "team": "core", "secret": "0123456789abc${X}"}]',
        "[{name: ann, team: core, secret: '0123456789abc${X}'}]",
        "- name: ann\n  team: core\n  secret: 0123456789abc${X}",
    ],
)
def test_keys_are_yaml_or_json_and_dollars_in_a_variable_are_plain_text(read: Read, text: str) -> None:
    (key,) = read("keys: [{name: x, team: y, secret: 0123456789abcdef}]", {"GATEWAY_KEYS": text}).keys
    assert key.secret is not None
    assert (key.name, key.team, key.secret.get_secret_value()) == ("ann", "core", "0123456789abc${X}")


def test_empty_variables_count_as_unset(read: Read) -> None:
    names = ["GATEWAY_CONFIG", "GATEWAY_SERVER_PORT", "GATEWAY_KEYS", "GMI_API_KEY", "GMI_BASE_URL", "GATEWAY_X"]
    assert read("", dict.fromkeys(names, "")) == Settings()


def test_names_that_platforms_make_up_are_left_alone(read: Read) -> None:
    names = [
        "GATEWAY_PORT",
        "GATEWAY_PORT_8080_TCP",
        "GATEWAY_PORT_8080_TCP_ADDR",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_SERVICE_PORT_HTTP",
        "GATEWAY_NAME",
        "GATEWAY_SERVER",
        "GATEWAY_LOG",
        "GATEWAY_ENV_PATH",
        "GATEWAY_REDIS_PORT",
        "GATEWAY_REDIS_PORT_6379_TCP_ADDR",
        "GATEWAY_REDIS_SERVICE_HOST",
        "GATEWAY_DATABASE_SERVICE_PORT_POSTGRESQL",
        "GATEWAY_ADMIN_PORT",
        "GATEWAY_KEYS_PORT",
        "gateway_server_port",
        "GATEWAYS_SERVER_PORT",
    ]
    assert read("", dict.fromkeys(names, "tcp://10.0.0.1:8080")) == Settings()


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("GATEWAY_SERVER_PROT", "server.prot: unknown key; did you mean GATEWAY_SERVER_PORT?"),
        ("GATEWAY_STREAMS_KEEPALIVE", "streams.keepalive: unknown key; did you mean GATEWAY_STREAMS_KEEPALIVE_S?"),
        ("GATEWAY_REDIS_PORT", "redis.port: unknown key; "),
        ("GATEWAY_SERVER_TRUSTED_PROXIES", "server.trusted_proxies: is not a list"),
        ("GATEWAY_ADMIN_KEY", "admin.key: must be 16 or more visible ASCII characters"),
        ("GATEWAY_DATABASE_URL", "database.url: must start with postgresql:// or sqlite:///"),
        ("GATEWAY_KEYS_0_NAME", "keys: cannot be set in parts; GATEWAY_KEYS holds the whole list, as YAML or JSON"),
        ("GATEWAY_SERVER_PORT", "server.port: is not a whole number"),
        ("GATEWAY_KEYS", "keys: is not a list; wanted: [{name: me, team: us, secret: …}]"),
        ("GATEWAY_MODELS_ALIASES", "models.aliases: is not a table of names"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(refuse: Refuse, name: str, problem: str) -> None:
    (said,) = refuse("", {name: "x"})
    assert said.startswith(f"{name}: {problem}")


def test_a_list_in_a_variable_that_is_not_yaml_is_refused(refuse: Refuse) -> None:
    (said,) = refuse("", {"GATEWAY_KEYS": "[{name: a"})
    assert said.startswith("GATEWAY_KEYS: keys: is not YAML: ")


def test_a_list_in_a_variable_that_is_nested_too_deep_is_refused(refuse: Refuse) -> None:
    (said,) = refuse("", {"GATEWAY_KEYS": "[" * 5000})
    assert said == "GATEWAY_KEYS: keys: is nested too deep; no setting has so many levels"


def test_the_process_environment_is_neither_read_nor_changed(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SERVER_PORT", "1")
    monkeypatch.setenv("GMI_API_KEY", "x")
    before = dict(os.environ)
    assert read("") == Settings()
    assert dict(os.environ) == before
