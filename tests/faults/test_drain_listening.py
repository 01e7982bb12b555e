"""A client that comes at the moment at which nobody is let in any more: accepted, or refused, but never lost."""

import errno
import select
import socket
import sys

import pytest

from gateway.http.listening import accept_waiting, ignore_newcomers
from tests.support.missing import is_missing

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\n"


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> socket.socket:
    if sys.platform != "linux":
        is_missing("sockets have no filters here; Linux has")
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    return socket.create_server((request.param, 0), family=family)


def test_who_was_let_in_before_is_accepted_and_may_go_on(listener: socket.socket) -> None:
    with listener, socket.create_connection(listener.getsockname()[:2]) as client:
        client.sendall(REQUEST)
        ignore_newcomers(listener)
        (accepted,) = accept_waiting([listener])
        listener.close()
        with accepted:
            assert accepted.recv(100) == REQUEST
            client.sendall(REQUEST)
            assert accepted.recv(100) == REQUEST


def test_who_comes_between_the_last_accept_and_the_close_is_refused_and_not_reset(listener: socket.socket) -> None:
    with listener, socket.socket(listener.family) as late:
        ignore_newcomers(listener)
        assert accept_waiting([listener]) == []
        late.setblocking(False)
        assert late.connect_ex(listener.getsockname()[:2]) == errno.EINPROGRESS
        assert accept_waiting([listener]) == []
        listener.close()
        _, answered, _ = select.select([], [late], [], 10)
        assert answered
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
