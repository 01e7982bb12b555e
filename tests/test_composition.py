"""What a gateway process is put together from."""

from pathlib import Path

import pytest

from gateway.composition import Books, Bounds, Doorkeepers
from gateway.relay.due import Upstream
from gateway.relay.headers import RequestHeaders
from gateway.upstream.choose import make_transport
from tests.support.gateway import settings_for
from tests.support.stores import fresh_sqlite_url


@pytest.mark.parametrize(
    ("upstream", "ask_due_after_s", "asks"), [({}, 60, True), ({}, 0, False), ({"simulator": True}, 60, False)]
)
async def test_the_models_alone_are_asked_what_they_owe_which_a_simulator_would_not_know(
    tmp_path: Path, upstream: dict[str, bool], ask_due_after_s: int, *, asks: bool
) -> None:
    fresh_sqlite_url(tmp_path)
    settings = settings_for(
        "http://127.0.0.1:9/v1",
        upstream=upstream,
        server={"state_dir": str(tmp_path)},
        ledger={"ask_due_after_s": ask_due_after_s},
    )
    doorkeepers = Doorkeepers(settings)
    bounds = Bounds(settings, doorkeepers.store)
    books = Books(settings, doorkeepers.store, bounds.allowance.meter)
    transport = make_transport(settings.upstream)
    way = Upstream(transport, RequestHeaders(b"127.0.0.1:9", b"key"), b"/v1")
    assert (books.asker(bounds, doorkeepers, way) is not None) is asks
    await transport.close()
    await doorkeepers.store.close()
