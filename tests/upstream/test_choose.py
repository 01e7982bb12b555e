"""Which transport the settings lead to."""

from pathlib import Path

import pytest

from gateway.settings import Upstream
from gateway.upstream.choose import make_transport
from gateway.upstream.httpx2_transport import Httpx2Transport
from gateway.upstream.native import NativeTransport
from gateway.upstream.transport import TransportTimeout
from tests.contract.transports import call, get
from tests.support.wire import Stall, WireUpstream, reply


@pytest.mark.parametrize(
    ("transport", "proxy", "expected"),
    [
        ("auto", None, NativeTransport),
        ("auto", "http://127.0.0.1:1", Httpx2Transport),
        ("native", None, NativeTransport),
        ("httpx2", None, Httpx2Transport),
        ("httpx2", "http://127.0.0.1:1", Httpx2Transport),
        ("httpx2", "https://127.0.0.1:1", Httpx2Transport),
    ],
)
@pytest.mark.parametrize("base_url", ["http://upstream.test/v1", "https://upstream.test/v1"])
async def test_the_transport_is_the_one_asked_for_or_the_one_that_can(
    transport: str, proxy: str | None, expected: type, base_url: str
) -> None:
    settings = Upstream.model_validate({"base_url": base_url, "transport": transport, "proxy": proxy})
    made = make_transport(settings)
    assert isinstance(made, expected)
    await made.close()


def test_native_with_a_proxy_is_refused_and_told_the_cure() -> None:
    settings = Upstream.model_validate({"transport": "native", "proxy": "http://127.0.0.1:1"})
    with pytest.raises(ValueError, match=r"set it to auto or httpx2, or take upstream\.proxy out"):
        make_transport(settings)


def test_a_file_of_authorities_that_is_not_there_is_an_oserror(tmp_path: Path) -> None:
    settings = Upstream.model_validate({"ca_file": str(tmp_path / "none.pem")})
    with pytest.raises(OSError, match="No such file"):
        make_transport(settings)


@pytest.mark.parametrize("kind", ["native", "httpx2"])
async def test_the_limits_of_the_settings_hold(kind: str) -> None:
    async with WireUpstream([Stall()], reply(body=b"ok")) as upstream:
        settings = Upstream.model_validate(
            {"base_url": upstream.url + "/v1", "transport": kind, "first_byte_timeout_s": 0.1, "max_connections": 1}
        )
        transport = make_transport(settings)
        with pytest.raises(TransportTimeout) as caught:
            await transport.send(get())
        assert (caught.value.phase, caught.value.limit_s) == ("headers", 0.1)
        assert (await call(transport, get()))[2] == b"ok"
        await transport.close()
