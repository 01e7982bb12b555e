"""Every example of the API page works through the gateway, unchanged but for base URL and key."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.call import CallRecord
from tests.clients.page import PAGE, Example, contents, examples
from tests.support.gateway import KEY, RunningGateway

EXAMPLES = examples()
CURL = [example for example in EXAMPLES if example.language == "curl"]
WRONG_NAME = next(e for e in EXAMPLES if (e.api, e.kind, e.language) == ("chat", "Image Input", "python"))


def run(command: list[str], tmp_path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(tmp_path), "GMI_API_KEY": KEY}
    return subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, encoding="utf-8", timeout=30, check=False
    )


def run_python(example: Example, gateway: RunningGateway, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "example.py"
    script.write_text(example.pointed_at(gateway.api, KEY), encoding="utf-8")
    return run([sys.executable, str(script)], tmp_path)


def printed(example: Example, gateway: RunningGateway, tmp_path: Path) -> str:
    """What the example prints; it must not fail."""
    if example.language == "curl":
        done = run(["sh", "-c", example.pointed_at(gateway.api, KEY)], tmp_path)
    else:
        done = run_python(example, gateway, tmp_path)
    assert done.returncode == 0, done.stderr
    return done.stdout


def only_record(gateway: RunningGateway) -> CallRecord:
    (record,) = gateway.wait_for_records(1)
    assert (record.status, record.outcome, record.model) == (200, "done", "openai/gpt-5.2")
    assert record.usage is not None
    assert record.usage.total_tokens > 0
    return record


def example(api: str, kind: str, language: str) -> Example:
    return next(e for e in EXAMPLES if (e.api, e.kind, e.language) == (api, kind, language))


def test_the_page_has_twelve_kinds_and_each_has_an_example() -> None:
    kinds = contents(PAGE.read_text(encoding="utf-8").splitlines())
    assert len(kinds) == 12
    assert list(dict.fromkeys((e.api, e.kind) for e in EXAMPLES)) == kinds
    assert [e.language for e in EXAMPLES].count("curl") == 11
    assert [e.language for e in EXAMPLES].count("python") == 5


@pytest.mark.parametrize("block", CURL, ids=str)
def test_every_curl_example_is_answered_and_its_usage_read(
    block: Example, gateway: RunningGateway, tmp_path: Path
) -> None:
    text = printed(block, gateway, tmp_path)
    record = only_record(gateway)
    assert record.streamed == (block.kind == "Streaming")
    if not record.streamed:
        reply = json.loads(text)
        assert reply["object"] == ("chat.completion" if block.api == "chat" else "response")
        assert reply["model"] == "openai/gpt-5.2"


def chat_reply(kind: str, gateway: RunningGateway, tmp_path: Path) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(printed(example("chat", kind, "curl"), gateway, tmp_path))
    return reply


def response(kind: str, gateway: RunningGateway, tmp_path: Path) -> dict[str, Any]:
    reply: dict[str, Any] = json.loads(printed(example("responses", kind, "curl"), gateway, tmp_path))
    assert reply["status"] == "completed"
    return reply


def text_of(reply: dict[str, Any]) -> str:
    """The text of a response's message."""
    (message,) = [item for item in reply["output"] if item["type"] == "message"]
    text: str = message["content"][0]["text"]
    return text


def test_the_default_chat_example_is_answered_with_a_message(gateway: RunningGateway, tmp_path: Path) -> None:
    (choice,) = chat_reply("Default", gateway, tmp_path)["choices"]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"].startswith("[simulated]")
    assert choice["finish_reason"] == "stop"


def test_the_streaming_chat_example_gets_chunks_and_done_and_no_usage_that_it_did_not_ask_for(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    *events, done, rest = printed(example("chat", "Streaming", "curl"), gateway, tmp_path).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert all(len(chunk["choices"]) == 1 and "usage" not in chunk for chunk in chunks)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks).startswith("[simulated]")
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_image_chat_example_brings_its_image(gateway: RunningGateway, tmp_path: Path) -> None:
    (choice,) = chat_reply("Image Input", gateway, tmp_path)["choices"]
    assert "demo.jpeg" in choice["message"]["content"]


def test_the_functions_chat_example_gets_a_tool_call(gateway: RunningGateway, tmp_path: Path) -> None:
    (choice,) = chat_reply("Functions", gateway, tmp_path)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_current_weather"
    assert "location" in json.loads(call["function"]["arguments"])


def test_the_default_responses_example_is_answered_with_a_message(gateway: RunningGateway, tmp_path: Path) -> None:
    assert text_of(response("Default", gateway, tmp_path)).startswith("[simulated]")


def test_the_streaming_responses_example_gets_numbered_events_up_to_completed(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    *events, rest = printed(example("responses", "Streaming", "curl"), gateway, tmp_path).split("\n\n")
    named = [event.split("\n") for event in events]
    bodies = [json.loads(data.removeprefix("data: ")) for _, data in named]
    assert rest == ""
    assert [name for name, _ in named] == [f"event: {body['type']}" for body in bodies]
    assert [body["sequence_number"] for body in bodies] == list(range(len(bodies)))
    assert (bodies[0]["type"], bodies[-1]["type"]) == ("response.created", "response.completed")


def test_the_reasoning_example_gets_a_reasoning_item_and_its_tokens(gateway: RunningGateway, tmp_path: Path) -> None:
    reply = response("Reasoning", gateway, tmp_path)
    assert [item["type"] for item in reply["output"]] == ["reasoning", "message"]
    assert reply["reasoning"]["effort"] == "low"
    reasoning_tokens = reply["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert reasoning_tokens > 0
    usage = only_record(gateway).usage
    assert usage is not None
    assert usage.reasoning_tokens == reasoning_tokens


def test_the_functions_responses_example_gets_a_function_call(gateway: RunningGateway, tmp_path: Path) -> None:
    (call,) = response("Functions", gateway, tmp_path)["output"]
    assert (call["type"], call["name"]) == ("function_call", "get_current_weather")
    assert set(json.loads(call["arguments"])) == {"location", "unit"}


def test_the_image_responses_example_brings_its_image(gateway: RunningGateway, tmp_path: Path) -> None:
    assert "demo.jpeg" in text_of(response("Image Input", gateway, tmp_path))


def test_the_file_example_brings_its_file(gateway: RunningGateway, tmp_path: Path) -> None:
    assert "2024ltr.pdf" in text_of(response("File Input", gateway, tmp_path))


def test_the_web_search_example_gets_a_search_and_a_citation(gateway: RunningGateway, tmp_path: Path) -> None:
    search, message = response("Web search", gateway, tmp_path)["output"]
    assert (search["type"], message["type"]) == ("web_search_call", "message")
    assert [each["type"] for each in message["content"][0]["annotations"]] == ["url_citation"]


def test_the_default_python_example_prints_a_message(gateway: RunningGateway, tmp_path: Path) -> None:
    text = printed(example("chat", "Default", "python"), gateway, tmp_path)
    assert text.startswith("ChatCompletionMessage(content='[simulated]")
    only_record(gateway)


def test_the_streaming_python_example_prints_every_delta(gateway: RunningGateway, tmp_path: Path) -> None:
    lines = printed(example("chat", "Streaming", "python"), gateway, tmp_path).splitlines()
    assert len(lines) > 3
    assert all(line.startswith("ChoiceDelta(") for line in lines)
    only_record(gateway)


def test_the_functions_python_example_prints_a_tool_call(gateway: RunningGateway, tmp_path: Path) -> None:
    text = printed(example("chat", "Functions", "python"), gateway, tmp_path)
    assert text.startswith("ChatCompletion(")
    assert "finish_reason='tool_calls'" in text
    assert "name='get_current_weather'" in text
    only_record(gateway)


def test_the_requests_example_prints_the_reply(gateway: RunningGateway, tmp_path: Path) -> None:
    reply = json.loads(printed(example("chat", "Python", "python"), gateway, tmp_path))
    assert reply["object"] == "chat.completion"
    assert "List 3 countries and their capitals." in reply["choices"][0]["message"]["content"]
    only_record(gateway)


def test_the_image_python_example_is_answered_and_then_fails_only_on_a_name_that_the_page_misspells(
    gateway: RunningGateway, tmp_path: Path
) -> None:
    done = run_python(WRONG_NAME, gateway, tmp_path)
    assert only_record(gateway).sent_bytes > 0
    *_, statement, _, error = done.stderr.rstrip("\n").split("\n")
    assert done.returncode == 1
    assert statement.strip() == "print(response.choices[0])"
    assert error == "NameError: name 'response' is not defined"


def test_the_image_python_example_works_with_that_name_corrected(gateway: RunningGateway, tmp_path: Path) -> None:
    corrected = WRONG_NAME.code.replace("print(response.", "print(completion.")
    block = Example(WRONG_NAME.api, WRONG_NAME.kind, WRONG_NAME.language, corrected)
    text = printed(block, gateway, tmp_path)
    assert text.startswith("Choice(finish_reason='stop'")
    assert "demo.jpeg" in text
