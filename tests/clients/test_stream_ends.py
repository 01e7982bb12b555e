"""A chat stream ends where upstream ends it, and at nothing that only looks like an end."""

import pytest

from tests.clients.line import ASKED, UNASKED, Line, Way, in_two
from tests.clients.streams import LOOKALIKES


@pytest.mark.parametrize("way", [ASKED, UNASKED], ids=["usage asked for", "usage not asked for"])
@pytest.mark.parametrize("name", LOOKALIKES)
async def test_an_event_that_only_ends_like_done_does_not_end_the_stream(wire: Line, way: Way, name: str) -> None:
    stream = LOOKALIKES[name]
    for at in range(1, len(stream)):
        assert await wire.received(way, in_two(wire, stream, at)) == stream, at
