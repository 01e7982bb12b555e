import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.relay.body import (
    MOST_ANSWERS,
    MOST_PROMPTS,
    POLICY_KEYS,
    Peek,
    ask_for_usage,
    members,
    peek,
    replace_model,
)

KEYS = sorted(POLICY_KEYS)

spaces = st.sampled_from(["", "", " ", "\n", "\t \r\n"])
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=6)
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
plain_keys = st.text(max_size=6).filter(lambda key: key.casefold() not in POLICY_KEYS)


@st.composite
def spelled(draw: st.DrawFn, text: str) -> str:
    """`text` as a JSON string in which any character may be an escape."""
    letters = [draw(st.sampled_from([letter, f"\\u{ord(letter):04x}"])) for letter in text]
    return '"' + "".join(letters) + '"'


@st.composite
def written(draw: st.DrawFn, members: list[tuple[str, str]]) -> str:
    """An object of `members`, key and value being JSON texts, with any white space between the tokens."""
    tokens = ["{", *(t for key, value in members for t in (key, ":", value, ",")), "}"]
    if members:
        del tokens[-2]  # the last comma
    return "".join(draw(spaces) + token for token in tokens) + draw(spaces)


@st.composite
def bodies(draw: st.DrawFn, name: str, value: st.SearchStrategy[str]) -> tuple[str, bool]:
    """A body with or without a member `name`, and whether it is there."""
    others = draw(st.dictionaries(plain_keys, values, max_size=4))
    pairs = [(json.dumps(key), json.dumps(other)) for key, other in others.items()]
    there = draw(st.booleans())
    if there:
        pairs.insert(draw(st.integers(0, len(pairs))), (draw(spelled(name)), draw(value)))
    return draw(written(pairs)), there


def refusal(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        peek(body)
    return caught.value


def test_everything_that_policy_needs_is_read() -> None:
    body = (
        b'{"model":"gpt-5.2","messages":[],"stream":true,"stream_options":{"include_usage":true,"x":1},'
        b'"background":true,"previous_response_id":"resp_1","conversation":"conv_1","max_tokens":7,'
        b'"store":false,"audio":{"voice":"alloy"},"prompt_cache_key":"k","n":3}'
    )
    assert peek(body) == Peek(
        prompt_bytes=len(body),
        model="gpt-5.2",
        stream=True,
        include_usage=True,
        background=True,
        previous_response_id="resp_1",
        conversation="conv_1",
        max_tokens=7,
        store=False,
        audio=True,
        prompt_cache_key="k",
        n=3,
    )


def test_what_is_not_given_is_absent() -> None:
    assert peek(b" {} ") == Peek(prompt_bytes=4)


def test_null_counts_as_absent() -> None:
    names = [key for key in KEYS if key != "model"]
    body = json.dumps(dict.fromkeys(names)).encode()
    assert peek(body) == Peek(prompt_bytes=len(body))


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
@pytest.mark.parametrize(
    ("value", "read"),
    [
        *(("7", 7), ("7.0", 7), ('"7"', 7), ('" 7.0 "', 7), ("3e4", 30_000), ("9" * 19, 10**19)),
        *((unstated, None) for unstated in ("0", "0.0", '"0"', "-1", "-1.0", '"-1"', "null", "1.5", '"1.5"', "true")),
        *((unstated, None) for unstated in ('""', '"many"', '"NaN"', '"inf"', "[]", '{"a":[1]}', "1e400", "9" * 5000)),
        ('"' + "9" * 5000 + '"', None),
    ],
)
def test_a_bound_is_read_as_the_most_generous_server_reads_it(name: str, value: str, read: int | None) -> None:
    assert getattr(peek(f'{{"{name}": {value}}}'.encode()), name) == read


def test_a_conversation_may_be_an_object_with_an_id() -> None:
    assert peek(b'{"conversation": {"x":[], "id":"conv_1"}}').conversation == "conv_1"


@pytest.mark.parametrize("value", ["true", "1", '"false"', "0", "{}"])
def test_whatever_upstream_may_read_as_true_means_that_it_stores(value: str) -> None:
    assert peek(f'{{"store": {value}}}'.encode()).store is True


@pytest.mark.parametrize("value", ["1", "[]", '{"a": "b"}'])
def test_a_prompt_cache_key_that_is_no_text_is_upstreams_business(value: str) -> None:
    assert peek(f'{{"prompt_cache_key": {value}}}'.encode()).prompt_cache_key is None


@pytest.mark.parametrize("name", ["n", "best_of"])
@pytest.mark.parametrize(
    ("value", "read"),
    [
        *(("129", 129), ("129.0", 129), ('"129"', 129), ("10000", 10_000)),
        *((value, MOST_ANSWERS) for value in (str(MOST_ANSWERS + 1), f'"{MOST_ANSWERS + 1}.0"', "9" * 20)),
        *((value, 1) for value in ("0", "-2", "null", "1.5", "true", "[]", '{"a": [1]}', '"all"')),
    ],
)
def test_no_call_asks_for_more_answers_than_there_may_be_or_for_less_than_one(name: str, value: str, read: int) -> None:
    assert getattr(peek(f'{{"{name}": {value}}}'.encode()), name) == read


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        *(("Hi", 1), (["Hi"], 1), ([], 1), (["a", 'b "c", ["d"]\n', ""], 3), (None, 1), (7, 1), ({"id": "pmpt_1"}, 1)),
        *(([5, 6, 7], 1), ([[5, 6], [7], []], 3), (["Hi"] * MOST_PROMPTS, MOST_PROMPTS)),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_prompts_are_counted(prompt: object, count: int, indent: int | None) -> None:
    assert peek(json.dumps({"prompt": prompt}, indent=indent).encode()).prompts == count


@pytest.mark.parametrize("prompt", ["Hi", "a, b", [5, 6]])
def test_prompts_beyond_those_that_are_counted_are_never_taken_for_fewer(prompt: object) -> None:
    assert peek(json.dumps({"prompt": [prompt] * 40_000}).encode()).prompts >= 40_000


@pytest.mark.parametrize(
    ("value", "read"),
    [
        *((text, True) for text in ("true", '"true"', "1", "0", '"false"', '"transparent"', "[]", "{}")),
        *((text, False) for text in ("false", "null")),
    ],
)
def test_a_background_that_some_server_may_read_as_true_is_one(value: str, *, read: bool) -> None:
    assert peek(f'{{"background": {value} }}'.encode()).background is read


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("value", ["1", "{}"])
def test_a_policy_key_may_stand_deeper_any_number_of_times(key: str, value: str) -> None:
    inner = f'{{"{key}":{value},"{key}":{value},"{key.upper()}":1}}'
    assert peek(f'{{"metadata":{inner},"metadata":[{inner}]}}'.encode()).model is None


def test_duplicates_of_other_keys_are_upstreams_business() -> None:
    assert peek(b'{"messages":[],"Messages":[],"messages":1,"model":"m"}').model == "m"


@given(st.sampled_from(KEYS), st.data())
def test_a_policy_key_that_stands_twice_in_any_spelling_is_refused(key: str, data: st.DataObject) -> None:
    first, second = (data.draw(spelled(key)) for _ in range(2))
    body = data.draw(written([(first, "null"), ('"x"', "[]"), (second, "null")]))
    if key == "model":
        body = body.replace("null", '"m"')
    error = refusal(body.encode())
    assert (error.status, error.param) == (400, key)
    assert key in error.message


@pytest.mark.parametrize(
    ("key", "policy_key"),
    [
        ("Model", "model"),
        ("mODEL", "model"),
        ("\u017ftream", "stream"),
        ("bac\u212aground", "background"),
        ("CONVERSATION", "conversation"),
        ("conversat\u0131on", "conversation"),
        ("conversat\u0130on", "conversation"),
        ("Max_Tokens", "max_tokens"),
    ],
)
@pytest.mark.parametrize("as_ascii", [False, True])
def test_a_key_that_some_reader_takes_for_a_policy_key_is_refused(key: str, policy_key: str, as_ascii: bool) -> None:
    alone = json.dumps({"a": 1, key: "x"}, ensure_ascii=as_ascii).encode()
    assert refusal(alone).param == policy_key


@pytest.mark.parametrize("key", ["models", "mod el", " model", "model\u0000", "mod\u00e9l", "model\n", "", "m\nmodel"])
def test_a_key_that_only_resembles_a_policy_key_passes(key: str) -> None:
    assert peek(json.dumps({key: 1, "model": "m"}).encode()).model == "m"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"stream_options":{"include_usage":true,"include_usage":false}}', "stream_options.include_usage"),
        (b'{"stream_options":{"include_usag\\u0065":true,"include_usage":true}}', "stream_options.include_usage"),
        (b'{"stream_options":{"Include_Usage":true}}', "stream_options.include_usage"),
        (b'{"conversation":{"id":"a","id":"b"}}', "conversation.id"),
        (b'{"conversation":{"ID":"a"}}', "conversation.id"),
    ],
)
def test_inner_policy_keys_are_unambiguous_too(body: bytes, param: str) -> None:
    assert refusal(body).param == param


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *(("model", wrong) for wrong in (b"null", b"1", b"[]", b"{}", b"true", b'"\xff"', b'"\\ud800x"')),
        *(("stream", wrong) for wrong in (b'"true"', b"1", b"[]")),
        *(("stream_options", wrong) for wrong in (b"[]", b"true", b'{"include_usage":1}', b'{"include_usage":"x"}')),
        *(("previous_response_id", wrong) for wrong in (b"1", b"{}", b"[]")),
        *(("conversation", wrong) for wrong in (b"1", b"{}", b"[]", b'{"id":null}', b'{"id":1}')),
    ],
)
def test_a_policy_value_of_a_wrong_type_is_refused_by_name(name: str, wrong: bytes) -> None:
    error = refusal(b'{"%s":%s}' % (name.encode(), wrong))
    assert error.status == 400
    assert error.param == name or b"ud800" in wrong


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "ends too early"),
        (b'{"model":"m"', "ends too early"),
        (b'{"x":"\\ud800"}', "it ends too early, or holds half of a surrogate pair such as \\ud800."),
        (b'{"x":"', "not valid JSON: it ends too early."),
        (b'{"model":"m",}', "trailing comma in object (byte 13)"),
        (b'{"x":NaN}', "invalid character (byte 5)"),
        (b'{"x":Infinity}', "byte 5"),
        (b"{'x':1}", "byte 1"),
        (b'\xef\xbb\xbf{"x":1}', "invalid character (byte 0)"),
        (b"{} {}", "trailing characters"),
        (b'{"x":"\n"}', "byte 6"),
        (b'{"x":01}', "byte 6"),
        (b'{"\xff":1}', "a key is not valid UTF-8"),
        ('{"model":"m"}'.encode("utf-16"), "byte 0"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"model"', "must be a JSON object"),
        (b"17", "must be a JSON object"),
        (b'{"x":' + b"[" * 100_000, "nested too deep"),
        (b'{"x":' * 100_000, "nested too deep"),
        (b'{"stream_options":' * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_json_object_is_refused_with_the_reason(body: bytes, reason: str) -> None:
    error = refusal(body)
    assert error.status == 400
    assert reason in error.message


@pytest.mark.parametrize(
    "body", [b'{"x":"\xff"}', b'{"x":"\\ud83d\\ude00"}', b'{"x":1e999}', b'{"x":' + b"9" * 9999 + b"}"]
)
def test_what_policy_does_not_read_is_left_to_upstream(body: bytes) -> None:
    assert peek(body).prompt_bytes == len(body)


tokens = st.sampled_from(
    [b"{", b"}", b"[", b"]", b",", b":", b" ", b"1", b"-", b"null", b"true", b"\\", b'"', b"\xff", b"\\u006d"]
) | st.sampled_from([b'"model"', b'"stream_options"', b'"include_usage"', b'"conversation"', b'"id"', b'"max_tokens"'])


@given(st.binary(max_size=80) | st.lists(tokens, max_size=24).map(b"".join))
@example(b'{"stream_options":{"include_usage":tru}}')
def test_any_bytes_are_read_or_refused_but_never_an_error_of_ours(body: bytes) -> None:
    try:
        peek(body)
    except BadRequest:
        return
    found = json.loads(body.decode("utf-8", "surrogateescape"), object_pairs_hook=list)
    assert [member.name for member in members(body)] == [name for name, _ in found]
    assert peek(ask_for_usage(body)).include_usage


@given(st.dictionaries(plain_keys, values))
def test_whatever_is_json_and_has_no_policy_keys_is_accepted(document: dict[str, Any]) -> None:
    for ascii_only in (True, False):
        body = json.dumps(document, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
        assert peek(body) == Peek(prompt_bytes=len(body))


@given(st.data())
def test_members_lie_where_they_are_said_to_lie(data: st.DataObject) -> None:
    text, _ = data.draw(bodies("model", st.just('"m"')))
    body = text.encode()
    for name, start, value_start, end in members(body):
        key, colon = json.JSONDecoder().raw_decode(body[start:].decode())
        assert key == name
        assert body[start + len(body[start:].decode()[:colon].encode()) : value_start].strip(b" \t\r\n") == b":"
        assert json.loads(body[value_start:end]) == json.loads(body)[name]
        assert body[value_start:end] == body[value_start:end].strip()


@given(st.data(), st.text())
def test_only_the_bytes_of_the_model_change(data: st.DataObject, name: str) -> None:
    old = data.draw(spelled("gpt-5.2"))
    text, there = data.draw(bodies("model", st.just(old)))
    body = text.encode()
    changed = replace_model(body, name)
    if not there:
        assert changed is body
        return
    assert json.loads(changed) == json.loads(body) | {"model": name}
    new = json.dumps(name, ensure_ascii=False).encode()
    assert len(changed) == len(body) - len(old) + len(new) or "\x7f" in name
    assert replace_model(changed, "gpt-5.2") == replace_model(body, "gpt-5.2")


OPTIONS = {
    "null": '{"include_usage":true}',
    "{}": '{"include_usage":true}',
    "{ }": '{"include_usage":true }',
    '{"x":[1, 2]}': '{"include_usage":true,"x":[1, 2]}',
    '{\n "x" : 1 }': '{"include_usage":true,\n "x" : 1 }',
    '{"include_usage":false}': '{"include_usage":true}',
    '{"x":1, "include_usage" : null , "y":2}': '{"x":1, "include_usage" : true , "y":2}',
    '{"include_usag\\u0065":false}': '{"include_usag\\u0065":true}',
    '{"include_usage":true}': '{"include_usage":true}',
}


@given(st.sampled_from(sorted(OPTIONS)), st.data())
def test_only_what_asks_for_usage_is_put_into_a_body(options: str, data: st.DataObject) -> None:
    text, there = data.draw(bodies("stream_options", st.just(options)))
    asked = ask_for_usage(text.encode()).decode()
    if there:
        before, _, after = text.partition(options)
        if text.count(options) == 1:
            assert asked == before + OPTIONS[options] + after
    else:
        added = '"stream_options":{"include_usage":true}'
        assert asked.replace(added + ",", "", 1).replace(added, "", 1) == text
        assert asked.lstrip().startswith("{" + added)
    want = json.loads(text)
    want["stream_options"] = json.loads(OPTIONS[options]) if there else {"include_usage": True}
    assert json.loads(asked) == want
    assert peek(asked.encode()).include_usage


def test_a_body_may_be_changed_in_both_ways() -> None:
    body = b'{"model":"gpt-5.2","messages":[1.0, 1e5, "\\u00e9"]}'
    for changed in (ask_for_usage(replace_model(body, "x/é")), replace_model(ask_for_usage(body), "x/é")):
        assert changed == (
            '{"stream_options":{"include_usage":true},"model":"x/é","messages":[1.0, 1e5, "\\u00e9"]}'.encode()
        )


@pytest.mark.parametrize("change", [ask_for_usage, lambda body: replace_model(body, "m")])
def test_a_body_that_is_no_object_cannot_be_changed(change: Any) -> None:
    with pytest.raises(BadRequest):
        change(b"[]")
