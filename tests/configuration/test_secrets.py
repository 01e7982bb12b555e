"""No message, repr or log holds a secret, wherever a person put it."""

import logging
from pathlib import Path

import pytest

from gateway.configuration import SettingsError
from tests.configuration.conftest import Read, Refuse

CANARY = "canary-5f2e8c1b9d7a4e60"


BAD_TEXTS_WITH_A_SECRET = [
    "upstream: {api_key: ['%s']}",
    "upstream: {api_key: '%s ', api_key_file: '%s'}",
    "upstream: {api_key: {%s: %s}}",
    "upstream: {api_key: !t %s}",
    "upstream: {api_key: *%s}",
    "upstream: {api_key: '%s",
    "upstream: {api_key: @%s}",
    "upstream: {api_key: '%s${NONE}'}",
    "upstream: {api_key: '${%s'}",
    "upstream: {api_key: '${NONE:-%s'}",
    "upstream:\n  api_key: %s\n\tproxy: x",
    "upstream: {api_key: %s, api_key: %s}",
    "upstream: {proxy: 'http://user:%s@proxy:port'}",
    "upstream: {proxy: 'http://user:%s@[proxy'}",
    "upstream: {proxy: 'http://user:%s@proxy/path'}",
    "upstream: {base_url: 'http://user:%s@host/v1'}",
    "upstream: {base_url: 'http://host:%s'}",
    "upstream: {organization_id: '%s x'}",
    "upstream: {transport: %s}",
    "upstream: %s",
    "%s",
    "keys: %s",
    "keys: [%s]",
    "keys: [{name: a, team: b, secret: 'x %s'}]",
    "keys: [{name: a, team: b, secret_sha256: %s}]",
    "keys: [{name: a, team: b, secret: %s, secret_sha256: %s}]",
    "keys: [{name: a, team: b, secret: %s}, {name: a, team: b, secret: %s}]",
    "upstream: {api_key: %s}\nkeys: [{name: a, team: b, secret: %s}]",
    "admin: {key: '%s x'}",
    "admin: {key: '%s', key_file: '%s'}",
    "admin: {key: %s}\nupstream: {api_key: %s}",
    "admin: {key: %s}\nkeys: [{name: a, team: b, secret: %s}]",
    "admin: {listen: %s}",
    "database: {url: %s}",
    "database: {url: 'postgresql://u:%s@h'}",
    "database: {url: 'postgresql://u:%s/x@h/n'}",
    "database: {url: 'postgresql://u:%s@x@h/n'}",
    "database: {url: 'postgresql://u:%s#x@h/n'}",
    "database: {url: 'postgresql+%s://h/n'}",
    "database: {url: 'sqlite:///a?key=%s'}",
    "redis: {url: %s}",
    "redis: {url: 'redis://:%s@h/x'}",
    "redis: {url: 'redis://h?%s=1'}",
    "redis: {url: 'redis://h?password=%s'}",
    "server: {trusted_proxies: [%s]}",
    "server: {port: %s}",
    "streams: {include_usage: %s, keepalive_s: %s}",
]


@pytest.mark.parametrize("text", BAD_TEXTS_WITH_A_SECRET)
@pytest.mark.parametrize("canary", [CANARY, f"sk-gw-{CANARY}", f"eyJhbGciOi.{CANARY}"])
def test_no_message_holds_a_secret(refuse: Refuse, text: str, canary: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = refuse(text.replace("%s", canary))
    assert said
    assert CANARY not in "\n".join(said) + caplog.text


@pytest.mark.parametrize("key", [f"sk-{CANARY}", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.payload.signature"])
def test_a_key_that_was_pasted_in_place_of_a_name_is_not_repeated(refuse: Refuse, key: str) -> None:
    for text in (f"upstream:\n  {key}: x", f"{key}: x", f"upstream: {{{key}: 1, {key}: 2}}"):
        assert key not in "\n".join(refuse(text))


@pytest.mark.parametrize(
    "environ",
    [
        {"GMI_API_KEY": f"{CANARY} x"},
        {"GATEWAY_UPSTREAM_API_KEY": f"{CANARY}\n"},
        {"GMI_API_KEY": CANARY, "GMI_API_KEY_FILE": "key"},
        {"GATEWAY_KEYS": CANARY},
        {"GATEWAY_KEYS": f"[{{secret: {CANARY}"},
        {"GATEWAY_KEYS": f"[{{secret: {CANARY}}}]"},
        {"GATEWAY_UPSTREAM_PROXY": f"http://u:{CANARY}@p/x"},
        {"GATEWAY_SERVER_PORT": CANARY},
        {"GATEWAY_ADMIN_KEY": f"{CANARY}\n"},
        {"GATEWAY_DATABASE_URL": f"postgres://u:{CANARY}@h"},
        {"GATEWAY_REDIS_URL": f"redis://:{CANARY}@h:x"},
        {"GATEWAY_SERVER_TRUSTED_PROXIES": f"[{CANARY}]"},
    ],
)
def test_no_message_holds_a_secret_of_the_environment(refuse: Refuse, environ: dict[str, str]) -> None:
    assert CANARY not in "\n".join(refuse("", environ))


def test_no_message_holds_what_is_in_a_key_file(refuse: Refuse) -> None:
    Path("key").write_text(f"{CANARY} {CANARY}")
    for text in ("upstream: {api_key_file: key}", "admin: {key_file: key}"):
        assert CANARY not in "\n".join(refuse(text))


def test_neither_the_error_nor_what_caused_it_holds_a_secret(read: Read) -> None:
    with pytest.raises(SettingsError) as caught:
        read(f"upstream: {{api_key: '{CANARY} x', proxy: 'http://u:{CANARY}@p:x'}}\nserver: {{port: {CANARY}}}")
    error: BaseException | None = caught.value
    while error is not None:
        assert CANARY not in repr(error) + str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_no_repr_of_the_settings_holds_a_secret(read: Read) -> None:
    text = f"keys: [{{name: a, team: t, secret: {CANARY}}}]\nupstream: {{proxy: 'http://u:{CANARY}@p:1'}}"
    text += f"\nadmin: {{key: {CANARY}-admin}}\ndatabase: {{url: 'postgresql://u:{CANARY}@h/n'}}"
    text += f"\nredis: {{url: 'redis://:{CANARY}@h'}}"
    settings = read(text, {"GMI_API_KEY": f"{CANARY}-of-the-account"})
    assert CANARY not in repr(settings) + str(settings)
