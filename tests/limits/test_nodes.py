"""How many share the limits: what Redis says, what is kept of it, and what is believed when."""

from pathlib import Path
from typing import Any

import pytest

from gateway.limits.nodes import Nodes
from gateway.limits.patience import Patience
from gateway.limits.server import Argument, Script


class Said:
    """A server that says these numbers, one after the other."""

    is_cluster = False

    def __init__(self, *numbers: int) -> None:
        self._numbers = iter(numbers)

    async def run(self, script: Script, keys: list[str], *arguments: Argument, patience: Patience) -> Any:
        del script, keys, arguments, patience
        return next(self._numbers)

    async def close(self) -> None:
        pass


async def told(nodes: Nodes, *numbers: int) -> list[int]:
    """What `nodes` believes after each of `numbers`."""
    server, found = Said(*numbers), []
    for _ in numbers:
        await nodes.count(server, "me")
        found.append(nodes.number)
    return found


async def test_more_are_believed_at_once_and_fewer_when_that_was_said_for_a_while() -> None:
    assert await told(Nodes(), 1, 3, 1, 2, 1, 1, 1, 1) == [1, 3, 3, 3, 3, 2, 2, 1]


async def test_the_next_start_begins_with_what_the_last_one_knew(tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    await told(Nodes(file), 12, 300)
    assert Nodes(file).number == 300
    await told(Nodes(file), 2, 2, 2, 2)
    assert Nodes(file).number == 2


def test_there_are_as_many_as_this_gateway_alone_has_workers(tmp_path: Path) -> None:
    assert Nodes(tmp_path / "nodes", at_least=4).number == 4


@pytest.mark.parametrize("text", [b"", b"many", b"-3", b"\0" * 9])
def test_a_file_that_says_nothing_is_as_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "nodes").write_bytes(text)
    assert Nodes(tmp_path / "nodes").number == 1


async def test_a_file_that_cannot_be_written_keeps_nobody_from_counting(tmp_path: Path) -> None:
    assert await told(Nodes(tmp_path / "missing" / "nodes"), 3) == [3]
