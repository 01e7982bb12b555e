"""What is allowed but was hardly meant is told, and what platforms make up is not."""

from datetime import UTC, datetime

import pytest

from gateway.configuration import doubtful_settings, misspelt_variables, variable_of
from gateway.settings import SECTIONS, Settings
from tests.configuration.conftest import Read


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_KEY", "GATEWAY_KEYS"),
        ("GATEWAY_CONFG", "GATEWAY_CONFIG"),
        ("GATEWAY_SEVER_PORT", "GATEWAY_SERVER_PORT"),
        ("GATEWAYS_SERVER_PORT", "GATEWAY_SERVER_PORT"),
        ("GATEWAY_STREAM_KEEPALIVE_S", "GATEWAY_STREAMS_KEEPALIVE_S"),
        ("GATEWAY_MODEL_ALIASES", "GATEWAY_MODELS_ALIASES"),
        ("gateway_server_port", "GATEWAY_SERVER_PORT"),
        ("GMI_APIKEY", "GMI_API_KEY"),
        ("GMI_KEY", "GMI_API_KEY"),
        ("GMI_KEY_FILE", "GMI_API_KEY_FILE"),
        ("GMI_BASEURL", "GMI_BASE_URL"),
    ],
)
def test_a_variable_that_is_nearly_a_setting_is_told_by_the_name_that_was_meant(name: str, meant: str) -> None:
    (doubt,) = misspelt_variables({name: "canary"})
    assert (doubt.text, doubt.cure) == (f"{name} is set and means nothing here", f"did you mean {meant}?")


@pytest.mark.parametrize(
    "name",
    [
        "GATEWAY_PORT",
        "GATEWAY_PORT_8080_TCP",
        "GATEWAY_PORT_8080_TCP_ADDR",
        "GATEWAY_SERVICE_HOST",
        "GATEWAY_SERVICE_PORT",
        "GATEWAY_SERVICE_PORT_HTTP",
        "GATEWAY_SEVER_SERVICE_HOST",
        "GATEWAY_SEVER_PORT",
        "GATEWAY_NAME",
        "GATEWAY_ENV_PATH",
        "GATEWAY_SERVER",
        "GATEWAY_LOG",
        "GATEWAY_INTERFACE",
        "OPENAI_API_KEY",
        "API_KEY",
        "GMI",
    ],
)
def test_names_that_platforms_make_up_and_names_of_others_are_not_told(name: str) -> None:
    assert not list(misspelt_variables({name: "tcp://10.0.0.1:8080"}))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("GATEWAY_LIMITS", "GATEWAY_LIMITS_EACH_KEY"),
        ("GATEWAY_LOG", "GATEWAY_LOG_FORMAT"),
        ("gateway_upstream", "GATEWAY_UPSTREAM_BASE_URL"),
    ],
)
def test_a_section_as_a_whole_is_no_variable_which_is_told_with_one_that_is(name: str, meant: str) -> None:
    (doubt,) = misspelt_variables({name: '{"canary": 1}'})
    assert doubt.text == f"{name} is set and means nothing here"
    assert doubt.cure == f"a section has a variable for each of its settings, as {meant}"


def test_each_section_as_a_whole_is_told() -> None:
    assert len(list(misspelt_variables({f"GATEWAY_{section.upper()}": "x" for section in SECTIONS}))) == len(SECTIONS)


def test_the_names_of_settings_empty_ones_and_those_refused_anyway_are_not_told() -> None:
    names = {variable_of((section, key)) for section in SECTIONS for key in getattr(Settings(), section).model_dump()}
    refused = {"GATEWAY_SERVER_PROT", "GATEWAY_KEYS_0_NAME"}
    assert not list(misspelt_variables(dict.fromkeys({"GATEWAY_KEYS", "GATEWAY_CONFIG", *names, *refused}, "x")))
    assert not list(misspelt_variables({"GATEWAY_KEY": ""}))


@pytest.mark.parametrize("url", ["https://api.example", "https://api.example/"])
def test_a_base_url_without_a_path_is_doubted(read: Read, url: str) -> None:
    (doubt,) = doubtful_settings(read("", {"GMI_API_KEY": "k3y", "GMI_BASE_URL": url}))
    assert doubt.text == "upstream.base_url has no path"
    assert doubt.cure == "most APIs sit under /v1: https://api.example/v1"


def test_a_key_that_has_expired_is_doubted_and_not_refused(read: Read) -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)
    text = "keys:\n- {name: a, team: t, secret: 0123456789abcdef0, expires_at: 2026-11-22T12:00:01Z}\n"
    text += "- {name: b, team: t, secret: 0123456789abcdef1, expires_at: 2026-11-22T13:00:00+01:00}"
    (doubt,) = doubtful_settings(read(text), now)
    assert (doubt.text, doubt.cure) == (
        "keys[1].expires_at is past: 2026-11-22T13:00:00+01:00",
        "take the key out or renew it",
    )


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0"])
def test_trust_in_every_address_as_a_proxy_is_doubted(read: Read, network: str) -> None:
    (doubt,) = doubtful_settings(read(f"server: {{trusted_proxies: [10.0.0.0/8, '{network}']}}"))
    assert doubt.text == "server.trusted_proxies holds every address, so that clients may claim to be anywhere"
    assert not list(doubtful_settings(read("server: {trusted_proxies: [10.0.0.0/8]}")))


def test_a_base_url_with_a_path_is_not_doubted(read: Read) -> None:
    assert not list(doubtful_settings(Settings()))
    assert not list(doubtful_settings(read("", {"GMI_API_KEY": "k3y", "GMI_BASE_URL": "https://api.example/openai"})))
