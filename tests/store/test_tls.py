"""`sslmode` of a PostgreSQL URL means what libpq's manual says (section 34.19.1)."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme
from sqlalchemy import text

from gateway.errors import StoreUnavailable
from gateway.store.engine import Store
from gateway.store.url import parse
from tests.support.stores import postgres_server

SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)


class TlsFront:
    """Does TLS in front of the real server, which was built without it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self.port = 0
        self.secured = 0
        """Connections that went through TLS."""

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["TlsFront"]:
        async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert await reader.readexactly(8) == SSL_REQUEST
        writer.write(b"S")
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.start_tls(self._context)
            self.secured += 1
            there, here = await asyncio.open_connection("127.0.0.1", postgres_server().port)
            await asyncio.gather(_pass_on(reader, here), _pass_on(there, writer))
        writer.close()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while piece := await reader.read(64 * 1024):
            writer.write(piece)
    writer.close()


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
async def front(authority: trustme.CA) -> AsyncIterator[TlsFront]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    async with TlsFront(context).listening() as listening:
        yield listening


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return tmp_path / "ca.pem"


async def connect(port: int, parameters: str) -> None:
    store = Store(parse(f"postgresql://postgres@127.0.0.1:{port}/postgres?{parameters}"))
    try:
        async with store.reading() as connection:
            await connection.execute(text("SELECT 1"))
    finally:
        await store.close()


@pytest.mark.parametrize("parameters", ["", "sslmode=prefer", "sslmode=require", "ssl=require", "ssl=true"])
async def test_tls_is_used_without_looking_at_the_certificate(front: TlsFront, parameters: str) -> None:
    await connect(front.port, parameters)
    assert front.secured == 1


@pytest.mark.parametrize("mode", ["sslmode=verify-ca", "sslmode=verify-full", "ssl=verify-full"])
async def test_a_certificate_of_the_named_authority_is_accepted(front: TlsFront, ca_file: Path, mode: str) -> None:
    await connect(front.port, f"{mode}&sslrootcert={ca_file}")
    assert front.secured == 1


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_certificate_of_another_authority_is_refused(front: TlsFront, tmp_path: Path, mode: str) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(StoreUnavailable) as refusal:
        await connect(front.port, f"sslmode={mode}&sslrootcert={tmp_path}/other.pem")
    assert "certificate verify failed" in refusal.value.detail


async def test_an_authority_that_is_not_there_is_an_outage_that_says_so(front: TlsFront, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable) as refusal:
        await connect(front.port, f"sslmode=verify-full&sslrootcert={tmp_path}/none.pem")
    assert "No such file" in refusal.value.detail


@pytest.mark.parametrize("parameters", ["", "sslmode=prefer", "sslmode=disable", "ssl=false"])
async def test_a_server_without_tls_is_used_where_none_was_asked_for(parameters: str) -> None:
    await connect(postgres_server().port, parameters)


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_server_without_tls_is_refused_where_it_was_asked_for(ca_file: Path, mode: str) -> None:
    with pytest.raises(StoreUnavailable):
        await connect(postgres_server().port, f"sslmode={mode}&sslrootcert={ca_file}")


async def test_other_parameters_are_settings_of_the_server() -> None:
    url = parse(
        f"postgresql://postgres@127.0.0.1:{postgres_server().port}/postgres?application_name=mine&connect_timeout=3"
    )
    store = Store(url, timeout_s=4)
    async with store.reading() as connection:
        names = ("application_name", "statement_timeout", "idle_in_transaction_session_timeout")
        found = [(await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in names]
    await store.close()
    assert found == ["mine", "3600ms", "4s"]
