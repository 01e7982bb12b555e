"""Memory for stored objects is bounded."""

import pytest

from gateway.simulator import call
from gateway.simulator.call import State
from gateway.simulator.shelf import Shelf


def test_the_least_recently_used_go_first() -> None:
    shelf: Shelf[int] = Shelf(max_items=2)
    for name in ("a", "b"):
        shelf.put(name, 1)
    assert shelf.find("a") == 1
    shelf.put("c", 1)
    assert (shelf.find("a"), shelf.find("b"), len(shelf)) == (1, None, 2)


def test_bytes_are_bounded_and_given_back() -> None:
    shelf: Shelf[str] = Shelf(max_bytes=10)
    shelf.put("a", "a", 6)
    shelf.put("b", "b", 6)
    assert repr(shelf) == "<Shelf 1 objects, 6 bytes>"
    shelf.put("b", "b", 2)
    assert shelf.take("b") == "b"
    assert repr(shelf) == "<Shelf 0 objects, 0 bytes>"


def test_all_come_in_the_order_in_which_they_were_put() -> None:
    shelf: Shelf[str] = Shelf()
    for name in ("a", "b", "c"):
        shelf.put(name, name)
    shelf.find("a")
    assert shelf.all() == ["a", "b", "c"]


def test_ids_stay_new_however_many_requests_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call, "MAX_COUNTED", 3)
    state = State()
    made = [state.another(b"%d" % (number % 5)) for number in range(50)]
    assert len(set(made)) == 50
