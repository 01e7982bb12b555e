"""What the simulated model says: one prompt in, one answer out, always the same.

Knows nothing of HTTP or of either API's shapes: `chat` and `responses` turn
their bodies into a Prompt and an Answer into their objects. Tokens are counted
as a quarter of UTF-8 bytes, rounded up.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.simulator.faults import Faults
from gateway.simulator.json_schema import instance
from gateway.simulator.refusals import invalid

PREFIX = "[simulated]"
MULTI_BYTE = " Naïve façade, 東京, 🦄."
REASONING_TOKENS = {"minimal": 16, "low": 32, "medium": 64, "high": 128, "xhigh": 256}
IMAGE_TOKENS = 85
FILE_TOKENS = 200
MAX_TEXT_BYTES = 64 * 1024 * 1024
CITED_URL = "https://example.com/simulated-news"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that the caller runs."""

    name: str
    parameters: Any = None
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class Attachment:
    """An image or a file of the prompt, in words; what is in it is never looked at."""

    kind: str
    source: str

    @property
    def tokens(self) -> int:
        return IMAGE_TOKENS if self.kind == "image" else FILE_TOKENS


@dataclass(frozen=True, slots=True)
class Prompt:
    """All that an answer depends on."""

    model: str
    texts: tuple[str, ...]
    last: str = ""
    last_is_tool_result: bool = False
    attachments: tuple[Attachment, ...] = ()
    tool: Tool | None = None
    searches_web: bool = False
    format: Any = None
    stop: tuple[str, ...] = ()
    max_tokens: int | None = None
    effort: str | None = None
    earlier_tokens: int = 0

    @property
    def tokens(self) -> int:
        return tokens_of("".join(self.texts)) + sum(a.tokens for a in self.attachments) + self.earlier_tokens


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The call that the model makes: JSON for a function, free text for a custom tool."""

    name: str
    arguments: str
    is_custom: bool


@dataclass(frozen=True, slots=True)
class Speech:
    """A text in the pieces in which it streams; a long one is never held whole."""

    words: str = ""
    count: int | None = None
    piece_bytes: int = 8

    def pieces(self) -> Iterator[str]:
        if self.count is None:
            yield from re.findall(r"\s*\S+|\s+", self.words)
        else:
            yield PREFIX
            modulus = 10 ** min(self.piece_bytes - 1, 12)
            for number in range(1, self.count):
                yield f" {number % modulus}".ljust(self.piece_bytes, ".")

    @property
    def size_bytes(self) -> int:
        if self.count is None:
            return len(self.words.encode())
        return len(PREFIX) + (self.count - 1) * self.piece_bytes

    @property
    def text(self) -> str:
        """The whole of it; refused where only a stream of chat completions could carry it."""
        if self.size_bytes > MAX_TEXT_BYTES:
            raise invalid(None, f"A text of {self.size_bytes} bytes can only be had as a stream of chunks.")
        return self.words if self.count is None else "".join(self.pieces())


@dataclass(frozen=True, slots=True)
class Answer:
    """A text or a tool call, and what it cost."""

    speech: Speech
    tool_call: ToolCall | None
    cut_short: bool
    visible_tokens: int
    reasoning_tokens: int

    @property
    def tokens(self) -> int:
        return self.visible_tokens + self.reasoning_tokens


def tokens_of(text: str) -> int:
    return -(-len(text.encode()) // 4)


def cached_tokens(prompt_tokens: int) -> int:
    """Half of a long prompt, in steps of 128, so that there is something to bill at another price."""
    return prompt_tokens // 2 // 128 * 128 if prompt_tokens >= 1024 else 0


def answer(prompt: Prompt, faults: Faults, choice: int = 0) -> Answer:
    """Choose between a tool call and a text, and hold to the limit on tokens."""
    if faults.chunks is not None:
        speech = Speech(count=faults.chunks, piece_bytes=faults.chunk_bytes)
        return Answer(speech, None, cut_short=False, visible_tokens=-(-speech.size_bytes // 4), reasoning_tokens=0)
    if prompt.tool is not None and not prompt.last_is_tool_result:
        return _call(prompt, prompt.tool)
    return _limited(_words(prompt, faults, choice), prompt)


def _call(prompt: Prompt, tool: Tool) -> Answer:
    arguments = PREFIX if tool.is_custom else msgspec.json.encode(instance(tool.parameters)).decode()
    if not tool.is_custom and not arguments.startswith("{"):
        arguments = "{}"
    call = ToolCall(tool.name, arguments, tool.is_custom)
    return Answer(
        Speech(),
        call,
        cut_short=False,
        visible_tokens=tokens_of(tool.name + arguments),
        reasoning_tokens=reasoning_tokens(prompt.effort),
    )


def reasoning_tokens(effort: str | None) -> int:
    return REASONING_TOKENS.get(effort or "none", 0)


def _limited(words: str, prompt: Prompt) -> Answer:
    thought = reasoning_tokens(prompt.effort)
    if prompt.max_tokens is None or thought + tokens_of(words) <= prompt.max_tokens:
        return Answer(Speech(words), None, False, tokens_of(words), thought)
    thought = min(thought, prompt.max_tokens)
    room_bytes = (prompt.max_tokens - thought) * 4
    kept = words.encode()[:room_bytes].decode(errors="ignore")
    return Answer(Speech(kept), None, True, tokens_of(kept), thought)


def _words(prompt: Prompt, faults: Faults, choice: int) -> str:
    if prompt.format is not None:
        return _as_json(prompt.format)
    sentences = [PREFIX, _about(prompt), *_attached(prompt)]
    if prompt.searches_web:
        sentences.append(f"Nothing was searched ([example.com]({CITED_URL})).")
    if choice:
        sentences.append(f"This is choice {choice + 1}.")
    text = " ".join(sentences) + (MULTI_BYTE if "split-utf8" in faults.odd else "")
    return _stopped(text, prompt.stop)


def _as_json(schema: Any) -> str:
    return msgspec.json.encode(instance(schema)).decode()


def _about(prompt: Prompt) -> str:
    what = "The tool said" if prompt.last_is_tool_result else "You said"
    return f'{prompt.model} was not asked. {what}: "{prompt.last[:200]}".'


def _attached(prompt: Prompt) -> list[str]:
    return [f"With it came: {attached.kind} ({attached.source})." for attached in prompt.attachments]


def _stopped(text: str, stop: tuple[str, ...]) -> str:
    """Cut before the first stop sequence, which is looked for only after the prefix."""
    ends = [text.find(sequence, len(PREFIX)) for sequence in stop if sequence]
    return text[: min([end for end in ends if end >= 0], default=len(text))]


def source_of(url: str | None, *, inline: str | None = None, file_id: str | None = None) -> str:
    """Where an attachment is, in a few words and without its content."""
    if file_id:
        return f"file id {file_id}"
    data = inline if inline is not None else url or ""
    if data.startswith("data:") or inline is not None:
        kind = data[5:].partition(";")[0] if data.startswith("data:") else "base64"
        return f"{kind} inline, {len(data)} characters"
    return f"URL {data[:200]}"


def pick_tool(tools: list[Tool], choice: Any) -> Tool | None:
    """The tool that is called: the one that `tool_choice` names, or else the first."""
    if choice == "none" or not tools:
        return None
    if not isinstance(choice, dict):
        return tools[0]
    named = set(_names(choice))
    return next((tool for tool in tools if tool.name in named), None)


def _names(choice: Any) -> Iterator[str]:
    """Every `name` in a tool choice, whichever of its six forms it has."""
    if isinstance(choice, dict):
        if isinstance(choice.get("name"), str):
            yield choice["name"]
        for member in choice.values():
            yield from _names(member)
    elif isinstance(choice, list):
        for member in choice:
            yield from _names(member)
