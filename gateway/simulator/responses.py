"""The responses API: create, read again, resume, cancel, delete, count and compact.

Paths as of https://platform.openai.com/docs/api-reference/responses. Knows what
is stored and for how long; the object and its events are made elsewhere.
"""

from dataclasses import dataclass, field

from gateway.simulator.answer import Prompt
from gateway.simulator.call import EVENT_STREAM, Call, Json, Reply, json_reply, require_model
from gateway.simulator.conversations import append, existing
from gateway.simulator.listing import list_reply
from gateway.simulator.refusals import Refusal, invalid, not_found
from gateway.simulator.response_events import stream
from gateway.simulator.response_object import finished, unfinished, usage
from gateway.simulator.response_prompt import ResponseRequest, check, input_items, prompt_of


@dataclass(slots=True)
class StoredResponse:
    """A response and what it answered. A background one is queued until somebody asks again."""

    response: Json
    items: list[Json] = field(default_factory=list)
    is_queued: bool = False
    piece_bytes: int | None = None


def create(call: Call) -> Reply:
    """POST /responses."""
    request = call.read(ResponseRequest)
    check(request)
    earlier = _earlier(call, request)
    items = input_items(call, request.input)
    response = finished(call, request, prompt_of(request, items, earlier))
    stored = StoredResponse(response, items, piece_bytes=_piece_bytes(call))
    _keep(call, request, stored)
    if request.stream:
        hidden = request.stream_options is not None and request.stream_options.include_obfuscation is False
        events = stream(response, obfuscate=not hidden, piece_bytes=stored.piece_bytes)
        return Reply(events, content_type=EVENT_STREAM)
    stored.is_queued = bool(request.background)
    return json_reply(unfinished(response, "queued") if stored.is_queued else response)


def _piece_bytes(call: Call) -> int | None:
    return None if call.faults.chunks is None else call.faults.chunk_bytes


def _keep(call: Call, request: ResponseRequest, stored: StoredResponse) -> None:
    if request.conversation:
        conversation = existing(call.state, _conversation_id(request), "conversation")
        append(conversation, [*stored.items, *stored.response["output"]])
    if request.store is not False:
        call.state.responses.put(stored.response["id"], stored, len(call.request.body))


def _conversation_id(request: ResponseRequest) -> str:
    given = request.conversation
    return str(given.get("id")) if isinstance(given, dict) else str(given)


def _earlier(call: Call, request: ResponseRequest) -> int:
    """Tokens of the turns before this one; raises Refusal if they are not there."""
    if request.conversation:
        return existing(call.state, _conversation_id(request), "conversation").tokens
    if request.previous_response_id is None:
        return 0
    previous: StoredResponse | None = call.state.responses.find(request.previous_response_id)
    if previous is None:
        message = f"Previous response with id '{request.previous_response_id}' not found."
        raise invalid("previous_response_id", message, "previous_response_not_found")
    tokens: int = (previous.response["usage"] or {}).get("total_tokens", 0)
    return tokens


def get(call: Call) -> Reply:
    """GET /responses/{id}, as an object or, with `stream=true`, as events after `starting_after`."""
    stored = _stored(call)
    query = call.request.query()
    stored.is_queued = False
    if query.get("stream", ["false"])[-1] != "true":
        return json_reply(stored.response)
    hidden = query.get("include_obfuscation", ["true"])[-1] == "false"
    after = _sequence_number(query.get("starting_after", ["-1"])[-1])
    events = stream(stored.response, obfuscate=not hidden, after=after, piece_bytes=stored.piece_bytes)
    return Reply(events, content_type=EVENT_STREAM)


def _sequence_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        message = "Invalid 'starting_after': expected an integer."
        raise invalid("starting_after", message, "invalid_type") from error


def delete(call: Call) -> Reply:
    """DELETE /responses/{id}."""
    _stored(call)
    call.state.responses.take(call.ids[0])
    return json_reply({"id": call.ids[0], "object": "response", "deleted": True})


def cancel(call: Call) -> Reply:
    """POST /responses/{id}/cancel; only a background response can be cancelled."""
    stored = _stored(call)
    if not stored.response["background"]:
        raise Refusal(400, "Cannot cancel a synchronous response.")
    if stored.is_queued:
        stored.is_queued = False
        stored.response = unfinished(stored.response, "cancelled")
    return json_reply(stored.response)


def list_input_items(call: Call) -> Reply:
    """GET /responses/{id}/input_items, newest first."""
    return list_reply(_stored(call).items, call.request.query())


def count_input_tokens(call: Call) -> Reply:
    """POST /responses/input_tokens."""
    return json_reply({"object": "response.input_tokens", "input_tokens": _counted(call).tokens})


def _counted(call: Call) -> Prompt:
    request = call.read(ResponseRequest)
    request.model = require_model(request.model or "simulated")
    return prompt_of(request, input_items(call, request.input), _earlier(call, request))


def compact(call: Call) -> Reply:
    """POST /responses/compact: the input's messages of the user, and one item in place of the rest."""
    request = call.read(ResponseRequest)
    require_model(request.model)
    items = input_items(call, request.input)
    kept = [item for item in items if item.get("role") == "user"]
    compaction = {
        "id": call.new_id("cmp_"),
        "type": "compaction",
        "encrypted_content": call.new_id("gAAAAAB"),
    }
    return json_reply(
        {
            "id": call.new_id("resp_"),
            "object": "response.compaction",
            "created_at": call.created(),
            "output": [*kept, compaction],
            "usage": usage(prompt_of(request, items, _earlier(call, request)).tokens, 8, 0),
        }
    )


def _stored(call: Call) -> StoredResponse:
    stored: StoredResponse | None = call.state.responses.find(call.ids[0])
    if stored is None:
        raise not_found("Response", call.ids[0])
    return stored
