"""The response object and its output items.

Shapes as of https://platform.openai.com/docs/api-reference/responses/object;
a response is built finished, and every earlier state is derived from that.
"""

from typing import Any

from gateway.simulator.answer import CITED_URL, Answer, Prompt, answer, cached_tokens
from gateway.simulator.call import Call, Json
from gateway.simulator.response_prompt import ResponseRequest

SUMMARY = "**Pretending to think**\n\nNobody thought about this: the upstream is simulated."


def finished(call: Call, request: ResponseRequest, prompt: Prompt) -> Json:
    """A response that has run to its end: `completed` or `incomplete`."""
    said = answer(prompt, call.faults)
    status = "incomplete" if said.cut_short else "completed"
    output = _output(call, request, prompt, said)
    return {
        "id": call.new_id("resp_"),
        "object": "response",
        "created_at": call.created(),
        "status": status,
        "background": bool(request.background),
        "completed_at": None if said.cut_short else call.created() + 1,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if said.cut_short else None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "model": request.model,
        "output": output,
        **_echoed(request),
        "usage": usage(prompt.tokens, said.tokens, said.reasoning_tokens),
        "user": request.user,
        "metadata": request.metadata or {},
    }


def _echoed(request: ResponseRequest) -> Json:
    reasoning = request.reasoning
    conversation = request.conversation
    if isinstance(conversation, str):
        conversation = {"id": conversation}
    return {
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "previous_response_id": request.previous_response_id,
        "conversation": conversation,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "safety_identifier": request.safety_identifier,
        "service_tier": "default",
        "store": request.store is not False,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(request.text or {})},
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools or [],
        "top_logprobs": 0,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "truncation": request.truncation or "disabled",
    }


def usage(input_tokens: int, output_tokens: int, reasoning_tokens: int) -> Json:
    return {
        "input_tokens": input_tokens,
        "input_tokens_details": {"cached_tokens": cached_tokens(input_tokens), "cache_write_tokens": 0},
        "output_tokens": output_tokens,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": input_tokens + output_tokens,
    }


def _output(call: Call, request: ResponseRequest, prompt: Prompt, said: Answer) -> list[Json]:
    items = []
    if said.reasoning_tokens:
        items.append(_reasoning(call, request))
    if prompt.searches_web:
        items.append(_web_search(call, prompt))
    items.append(_tool_call(call, said) if said.tool_call else _message(call, said))
    return items


def _reasoning(call: Call, request: ResponseRequest) -> Json:
    wants_summary = request.reasoning is not None and request.reasoning.summary is not None
    item: Json = {
        "id": call.new_id("rs_"),
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": SUMMARY}] if wants_summary else [],
    }
    if "reasoning.encrypted_content" in (request.include or []):
        item["encrypted_content"] = call.new_id("gAAAAAB")
    return item


def _web_search(call: Call, prompt: Prompt) -> Json:
    action = {"type": "search", "query": prompt.last[:200], "queries": [prompt.last[:200]]}
    return {"id": call.new_id("ws_"), "type": "web_search_call", "status": "completed", "action": action}


def _tool_call(call: Call, said: Answer) -> Json:
    called = said.tool_call
    if called is None:
        return {}
    if called.is_custom:
        head: Json = {"id": call.new_id("ctc_"), "type": "custom_tool_call", "status": "completed"}
        return {**head, "call_id": call.new_id("call_"), "name": called.name, "input": called.arguments}
    head = {"id": call.new_id("fc_"), "type": "function_call", "status": "completed"}
    return {**head, "arguments": called.arguments, "call_id": call.new_id("call_"), "name": called.name}


def _message(call: Call, said: Answer) -> Json:
    text = said.speech.text
    part = {"type": "output_text", "annotations": _citations(text), "logprobs": [], "text": text}
    return {
        "id": call.new_id("msg_"),
        "type": "message",
        "status": "incomplete" if said.cut_short else "completed",
        "content": [part],
        "role": "assistant",
    }


def _citations(text: str) -> list[Json]:
    link = f"([example.com]({CITED_URL}))"
    start = text.find(link)
    if start < 0:
        return []
    title = "A simulated page"
    span = {"start_index": start, "end_index": start + len(link)}
    return [{"type": "url_citation", **span, "title": title, "url": CITED_URL}]


def unfinished(response: Json, status: str) -> Json:
    """The same response in an earlier state (`queued`, `in_progress`) or one without output (`cancelled`)."""
    nothing: dict[str, Any] = {"completed_at": None, "incomplete_details": None, "output": [], "usage": None}
    return {**response, **nothing, "status": status}
