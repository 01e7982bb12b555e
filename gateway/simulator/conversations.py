"""Conversations and their items.

Paths as of https://platform.openai.com/docs/api-reference/conversations.
"""

from dataclasses import dataclass, field

import msgspec

from gateway.simulator.answer import tokens_of
from gateway.simulator.call import Call, Json, Reply, State, json_reply
from gateway.simulator.listing import list_reply
from gateway.simulator.refusals import missing, not_found
from gateway.simulator.response_prompt import input_items

MAX_ITEMS = 1_000


@dataclass(slots=True)
class Conversation:
    """A conversation; it forgets its oldest items past `MAX_ITEMS`."""

    body: Json
    items: list[Json] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return tokens_of(msgspec.json.encode(self.items).decode())


class ConversationRequest(msgspec.Struct):
    items: list[Json] | None = None
    metadata: dict[str, str] | None = None


def append(conversation: Conversation, items: list[Json]) -> None:
    conversation.items = [*conversation.items, *items][-MAX_ITEMS:]


def existing(state: State, conversation_id: str, param: str | None = None) -> Conversation:
    """Raises Refusal (404) if there is none."""
    found: Conversation | None = state.conversations.find(conversation_id)
    if found is None:
        raise not_found("Conversation", conversation_id, param)
    return found


def create(call: Call) -> Reply:
    """POST /conversations."""
    request = call.read(ConversationRequest)
    body: Json = {
        "id": call.new_id("conv_"),
        "object": "conversation",
        "created_at": call.created(),
        "metadata": request.metadata or {},
    }
    conversation = Conversation(body, input_items(call, request.items))
    call.state.conversations.put(body["id"], conversation, len(call.request.body))
    return json_reply(body)


def get(call: Call) -> Reply:
    """GET /conversations/{id}."""
    return json_reply(existing(call.state, call.ids[0]).body)


def update(call: Call) -> Reply:
    """POST /conversations/{id}."""
    conversation = existing(call.state, call.ids[0])
    conversation.body["metadata"] = call.read(ConversationRequest).metadata or {}
    return json_reply(conversation.body)


def delete(call: Call) -> Reply:
    """DELETE /conversations/{id}."""
    existing(call.state, call.ids[0])
    call.state.conversations.take(call.ids[0])
    return json_reply({"id": call.ids[0], "object": "conversation.deleted", "deleted": True})


def create_items(call: Call) -> Reply:
    """POST /conversations/{id}/items."""
    conversation = existing(call.state, call.ids[0])
    given = call.read(ConversationRequest).items
    if given is None:
        raise missing("items")
    items = input_items(call, given)
    append(conversation, items)
    return list_reply(items, {"limit": ["100"]}, "asc")


def list_items(call: Call) -> Reply:
    """GET /conversations/{id}/items, newest first."""
    return list_reply(existing(call.state, call.ids[0]).items, call.request.query())


def get_item(call: Call) -> Reply:
    """GET /conversations/{id}/items/{item_id}."""
    return json_reply(_item(existing(call.state, call.ids[0]), call.ids[1]))


def delete_item(call: Call) -> Reply:
    """DELETE /conversations/{id}/items/{item_id}; answers with the conversation, as the real API does."""
    conversation = existing(call.state, call.ids[0])
    conversation.items.remove(_item(conversation, call.ids[1]))
    return json_reply(conversation.body)


def _item(conversation: Conversation, item_id: str) -> Json:
    for item in conversation.items:
        if item["id"] == item_id:
            return item
    raise not_found("Item", item_id)
