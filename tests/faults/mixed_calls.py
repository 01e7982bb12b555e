"""Calls of all kinds, drawn from a seed, what becomes of each, and what its client saw of it.

Knows requests and replies as clients do, and how the simulator is asked to fail; nothing of what a gateway counts.
"""

import asyncio
import json
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from tests.faults.face import CHAT, RESPONSES, Answer, Client, ask, connected, parse_head, request
from tests.faults.nodes import Made

EMBEDDINGS = "/v1/embeddings"
LARGE, SMALL, FREE, EMBEDDING = "openai/gpt-5.2", "openai/gpt-5.2-mini", "simulated", "vendor/embedding"
ALIAS = "the-small-one"
NOBODY = "openai/gpt-nobody"
"""A model that upstream does not know."""

Fate = Literal["whole", "malformed", "error", "broken", "stuck", "stalled", "midway", "unanswered", "in_band"]
"""Complete; refused by the gateway; an error of upstream's; broken off by upstream; never answered by it; left by the
client when it has all that will come, or within the stream, or before the reply; ended by an error in the stream."""

_FATES: dict[Fate, int] = {
    "whole": 62,
    "malformed": 4,
    "error": 8,
    "broken": 14,
    "stuck": 1,
    "stalled": 5,
    "midway": 5,
    "unanswered": 1,
}
_ERRORS = (400, 404, 429, 500, 503)
_WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "in", "Zürich", "or", "東京", "🦄")
_ODD = ("odd=crlf", "odd=comments", "odd=unknown-events", "odd=gzip", "odd=split-utf8", "odd=no-done", "drip=100")
_TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@dataclass(frozen=True, slots=True)
class Planned:
    """One call: who makes it, what it asks, and what is to become of it."""

    number: int
    who: Made
    path: str
    body: Mapping[str, Any]
    fate: Fate = "whole"
    simulate: str = ""

    @property
    def model(self) -> str:
        """By the name that upstream knows."""
        name = str(self.body["model"])
        return SMALL if name == ALIAS else name

    @property
    def is_chat_stream(self) -> bool:
        return self.path == CHAT and bool(self.body.get("stream"))

    @property
    def asks_for_usage(self) -> bool:
        return self.path != CHAT or not self.body.get("stream") or "stream_options" in self.body

    def request(self, **changed: Any) -> bytes:
        """The bytes of the request, members of its body `changed`."""
        body = json.dumps({**self.body, **changed}).encode()
        return request("POST", self.path, body, self._fields(self.simulate))

    def directly(self, simulate: str, **changed: Any) -> bytes:
        """The same for the simulator itself, which is asked to do this to it."""
        body = json.dumps({**self.body, "model": self.model, **changed}).encode()
        return request("POST", self.path, body, self._fields(simulate))

    def _fields(self, simulate: str) -> list[tuple[str, str]]:
        fields = [("Authorization", f"Bearer {self.who.secret}"), ("Content-Type", "application/json")]
        if simulate:
            fields.append(("X-Simulate", simulate))
        if self.fate == "unanswered":
            fields.append(("X-Gateway-Tags", f"number={self.number}"))
        return fields


@dataclass(frozen=True, slots=True)
class Seen:
    """What a client saw of its call. `answer` is None where it left before there was one.

    `directly` is the `usage` that the simulator reports to whoever asks it the same without a gateway, for clients
    whose replies do not tell.
    """

    planned: Planned
    answer: Answer | None
    has_left: bool = False
    directly: Mapping[str, Any] | None = None

    @property
    def call_id(self) -> str | None:
        return None if self.answer is None else self.answer.header("x-gateway-request-id")


@dataclass(slots=True)
class Draw:
    """Draws calls of `people`, by weight; `bounded` make small plain ones, and the models of `granted` are all that one
    of them may use. What becomes of calls of `unbound` may be that nobody knows what they used.
    """

    chance: random.Random
    people: Mapping[str, tuple[Made, int]]
    bounded: frozenset[str] = frozenset()
    unbound: frozenset[str] = frozenset()
    _number: int = field(default=0)

    def calls(self, count: int) -> Iterator[Planned]:
        """So many."""
        names = list(self.people)
        weights = [weight for _, weight in self.people.values()]
        for _ in range(count):
            self._number += 1
            (name,) = self.chance.choices(names, weights)
            who, _ = self.people[name]
            yield self._small(who) if name in self.bounded else self._any(who, name in self.unbound)

    def _small(self, who: Made) -> Planned:
        body = {"model": LARGE, "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 16}
        return Planned(self._number, who, CHAT, body)

    def _any(self, who: Made, is_unbound: bool) -> Planned:
        chance = self.chance
        (fate,) = chance.choices(list(_FATES), list(_FATES.values()))
        path = chance.choices((CHAT, RESPONSES, EMBEDDINGS), (5, 4, 2))[0]
        if fate in ("stalled", "midway", "unanswered") and path == EMBEDDINGS:
            path = CHAT
        if is_unbound and fate == "stalled":
            fate = "in_band"
        streams = fate in ("stalled", "midway", "in_band") or chance.random() < 0.55
        call = Planned(self._number, who, path, self._body(path, streams), fate)
        return self._with_fate(call)

    def _body(self, path: str, streams: bool) -> dict[str, Any]:
        chance, text = self.chance, self._text()
        if path == EMBEDDINGS:
            given = text if chance.random() < 0.5 else [text, text[:40], "x"]
            return {"model": EMBEDDING, "input": given, "dimensions": chance.randrange(4, 64)}
        model = chance.choices((LARGE, SMALL, FREE, ALIAS), (5, 3, 2, 1))[0]
        body: dict[str, Any] = {"model": model, "stream": streams}
        bound, effort = chance.choice((None, None, 16, 40, 700)), chance.choice((None, None, "low", "high"))
        if path == RESPONSES:
            body |= {"input": text, "store": chance.random() < 0.1}
            body |= {} if bound is None else {"max_output_tokens": bound}
            return body | ({} if effort is None else {"reasoning": {"effort": effort}})
        body["messages"] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]
        body |= {} if bound is None else {"max_tokens": bound}
        body |= {} if effort is None else {"reasoning_effort": effort}
        if streams and chance.random() < 0.5:
            body["stream_options"] = {"include_usage": True}
        if chance.random() < 0.2:
            body["n"] = 2
        return body

    def _text(self) -> str:
        """Of some ten to some six thousand characters; short ones are more."""
        size, text = 10 * 600 ** self.chance.random(), ""
        while len(text) < size:
            text += self.chance.choice(_WORDS) + " "
        return text

    def _with_fate(self, call: Planned) -> Planned:
        if call.fate == "malformed":
            return replace(call, body={**call.body, "model": 7})
        if call.fate == "unanswered":  # of a model that nobody is refused
            return replace(call, body={**call.body, "model": SMALL}, simulate="stall=headers")
        if call.fate == "error" and call.path != EMBEDDINGS and self.chance.random() < 0.2:
            return replace(call, body={**call.body, "model": NOBODY})
        if call.fate == "whole" and call.path == CHAT and self.chance.random() < 0.15:
            return replace(call, body={**call.body, "tools": [_TOOL]})
        return replace(call, simulate=self._fault(call))

    def _fault(self, call: Planned) -> str:  # noqa: PLR0911 - a line a fate
        chance = self.chance
        match call.fate:
            case "error":
                return f"status={chance.choice(_ERRORS)}"
            case "broken":
                return _joined(self._length(), f"{chance.choice(('cut', 'reset'))}={chance.randrange(9_000)}")
            case "stuck":
                return "stall=headers"
            case "stalled":
                return _joined(self._length(), f"stall={chance.randrange(4_000, 8_000)}")
            case "midway":
                return "chunks=60; chunk-delay=0.005; stall=9000"
            case "in_band":
                return f"chunks=20; fail={chance.randrange(4, 12)}"
            case _:
                return "" if call.path == EMBEDDINGS else _joined(self._length(), self._oddity(call))

    def _oddity(self, call: Planned) -> str:
        odd = self.chance.choice(_ODD) if self.chance.random() < 0.3 else ""
        # Without the last event of a response nobody would know what it used.
        return "" if odd == "odd=no-done" and call.path != CHAT else odd

    def _length(self) -> str:
        if self.chance.random() < 0.5:
            return ""
        return f"chunks={self.chance.randrange(1, 60)}; chunk-bytes={self.chance.choice((2, 8, 20))}"


def _joined(*directives: str) -> str:
    return "; ".join(each for each in directives if each)


def served_whole(call: Planned) -> bytes:
    """A request to the simulator itself for what `call` would get if nothing went wrong, with its usage."""
    length = [each for each in call.simulate.split("; ") if each.startswith("chunk")]
    kept = [each for each in length if not each.startswith("chunk-delay")]
    if "odd=split-utf8" in call.simulate:
        kept.append("odd=split-utf8")  # it is a part of the text
    return call.directly(_joined(*kept), stream=False, stream_options=None)


class Caller:
    """Makes calls through a gateway on `port`, on connections that last as long as their replies let them.

    `simulator` is the port of the upstream itself.
    """

    def __init__(self, port: int, simulator: int, chance: random.Random) -> None:
        self._port, self._simulator, self._chance = port, simulator, chance

    async def make(self, calls: Iterator[Planned], seen: list[Seen]) -> None:
        """Make all of `calls`, and note in `seen` what was seen of each."""
        call = next(calls, None)
        while call is not None:
            async with connected(self._port) as client:
                is_open = True
                while call is not None and is_open:
                    seen.append(await self._make(client, call))
                    is_open = not seen[-1].has_left and seen[-1].answer is not None and _goes_on(seen[-1].answer)
                    call = next(calls, None)

    async def _make(self, client: Client, call: Planned) -> Seen:
        directly, leaves_at = None, 0
        if call.fate == "stalled":
            leaves_at = await self._events_before_stall(call)
        elif call.fate == "midway":
            leaves_at = self._chance.randrange(1, 9)
        client.send(call.request())
        answer, has_left = await _read(client, leaves_at)
        if has_left:
            client.reset() if self._chance.random() < 0.5 else client.leave()
        if answer.status == 200 and not call.asks_for_usage:
            told = await ask(self._simulator, served_whole(call))
            directly = json.loads(told.body)["usage"]
        return Seen(call, answer, has_left, directly)

    async def _events_before_stall(self, call: Planned) -> int:
        """How many events come before the simulator stalls; 0: all of them."""
        asked = {"stream_options": {"include_usage": True}} if call.path == CHAT else {}
        told = await ask(self._simulator, call.directly(call.simulate.replace("stall=", "cut="), **asked))
        hidden = 0 if call.asks_for_usage else told.body.count(b'"choices":[]')
        return 0 if told.end == "complete" else told.body.count(b"\n\n") - hidden

    async def leave_unanswered(self, call: Planned) -> Seen:
        """Go away when the call has come to upstream, which does not answer it. Nobody else may call meanwhile."""
        await self._upstream_has_open(0)
        async with connected(self._port) as client:
            client.send(call.request())
            await self._upstream_has_open(1)
            client.leave()
        return Seen(call, None, has_left=True)

    async def _upstream_has_open(self, count: int) -> None:
        """Wait until it has so many calls under way."""
        told = await ask(self._simulator, request("GET", f"/_seen?open={count}"), within_s=10)
        assert told.status == 200, f"upstream has not {count} calls"


async def _read(client: Client, leaves_at: int) -> tuple[Answer, bool]:
    """A reply to its end, or to so many events of it, and whether that was before its end."""
    if not leaves_at:
        return await client.answer(within_s=30), False
    status, head = await client.head(within_s=30)
    headers, body = parse_head(head), b""
    if length := dict(headers).get("content-length"):
        return Answer(status, head, headers, await client.reader.readexactly(int(length)), "complete"), False
    async with asyncio.timeout(30):
        while body.count(b"\n\n") < leaves_at:
            piece = await client.chunk()
            if not piece:
                return Answer(status, head, headers, body, "complete"), False
            body += piece
    return Answer(status, head, headers, body, "cut"), True


def _goes_on(answer: Answer) -> bool:
    return answer.end == "complete" and answer.header("connection") != "close"
