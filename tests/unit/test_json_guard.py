"""Promises of the guard that every JSON body passes before anything reads it."""

import contextlib
import json
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from llm_gate.dialects._json import (
    ABSENT,
    MAX_DEPTH,
    given_or_none,
    is_given,
    read_as,
    read_object,
    split_location,
)
from llm_gate.domain.errors import InvalidRequest
from support.figures import property_of

NASTY = st.text(alphabet=st.sampled_from('[]{}:,"\\/ u0dD8aé🙂\n'), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | NASTY,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NASTY, inner, max_size=4),
    max_leaves=20,
)


def refused(body):
    with pytest.raises(InvalidRequest) as caught:
        read_object(body)
    return caught.value.message


def nested(depth):
    """Return an object of a depth, the outermost braces counting as one."""
    return b'{"a":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"


@property_of(most=2_000)
@given(
    document=st.dictionaries(NASTY, VALUES, max_size=6),
    indent=st.sampled_from([None, 2]),
    ascii_only=st.booleans(),
)
def test_any_document_is_split_faithfully(document, indent, ascii_only):
    """Whatever a JSON writer produces is taken, and its fields decode to what was written."""
    body = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    fields = read_object(body)
    assert {key: json.loads(bytes(raw)) for key, raw in fields.items()} == document


@property_of(most=2_000)
@given(document=st.dictionaries(NASTY, VALUES, min_size=1, max_size=4), data=st.data())
def test_a_repeated_key_is_always_found(document, data):
    """A document in which a top-level key is repeated is refused, whatever stands around it."""
    again = data.draw(st.sampled_from(sorted(document)))
    body = json.dumps(document)[:-1] + f", {json.dumps(again)}: 1}}"
    assert refused(body.encode()) == "the body names the same key twice"


@property_of()
@given(body=st.binary(max_size=60))
def test_random_bytes_are_split_or_refused(body):
    """Bytes of any kind end in fields or in a refusal, never in another error."""
    try:
        fields = read_object(body)
    except InvalidRequest:
        return
    assert isinstance(fields, dict)


@pytest.mark.parametrize("depth", [1, 2, MAX_DEPTH - 1, MAX_DEPTH])
def test_depth_up_to_the_limit(depth):
    """Nesting is allowed up to the limit, the outermost object included."""
    assert list(read_object(nested(depth) if depth > 1 else b'{"a":1}')) == ["a"]


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, MAX_DEPTH + 2, 130, 300, 5001, 500_000])
def test_deeper_nesting_is_refused(depth):
    """One level more is refused, and so is any number of levels."""
    assert refused(nested(depth)).startswith("the body is nested deeper than 64 levels")


@pytest.mark.parametrize(
    "mixed", [b'{"a":' * 65 + b"1" + b"}" * 65, b'{"a":[{"b":' * 33 + b"1" + b"}]}" * 33]
)
def test_deep_objects_are_refused(mixed):
    """Objects count like arrays."""
    assert refused(mixed).startswith("the body is nested deeper")


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5000 + b"]" * 5000,
        b"[" * 5000,
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b"true",
        b"",
        b" ",
        b"\xef\xbb\xbf{}",
    ],
)
def test_only_objects_are_taken(body):
    """Anything but one object is refused, a 5,000-deep array included."""
    reasons = ("the body must be a JSON object", "the body is not valid JSON", "the body is nested deeper")
    assert refused(body).startswith(reasons)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":1,"a":1}',
        b'{"a":1,"\\u0061":2}',
        b'{"\\u0061":1,"a":2}',
        b'{"a\\/b":1,"a/b":2}',
        b'{"":1,"":2}',
        b'{"a":1 , "b":[{"a":1}], "a" : {"x":{}}}',
        b'{"a\\"}":1,"a\\u0022\\u007d":2}',
        b'{"\\\\":1,"\\\\":2}',
    ],
)
def test_top_level_keys_must_differ(body):
    """A key that occurs twice is refused, also where the two are spelt differently."""
    assert refused(body) == "the body names the same key twice"


def test_nested_keys_may_repeat():
    """Inside a value a repeated key is the vendor's affair, and no count is confused by it."""
    body = b'{"a":{"b":1,"b":2},"c":[{"d":1,"d":2}]}'
    assert {key: bytes(raw) for key, raw in read_object(body).items()} == {
        "a": b'{"b":1,"b":2}',
        "c": b'[{"d":1,"d":2}]',
    }


@pytest.mark.parametrize(
    "text",
    [
        r"\ud800",
        r"\uD83D",
        r"\udc00",
        r"\uDFFF",
        r"\uDE00\uD83D",
        r"\ud83d\ud83d\ude00",
        r"\ud83d\ude00\ude00",
        r"\ud83d \ude00",
        r"\ud83d\\\ude00",
        r"\\\ud800",
        r"\\uD800\uDC00",
        r"\ud83d\ud83d\ude00\ude00",
        r"\ud83dx",
        r"\ud83d\n",
    ],
)
def test_lone_surrogates_are_refused(text):
    """An escaped half of a character is refused in values, keys and deep inside, whatever stands before it."""
    for body in (f'{{"a":"{text}"}}', f'{{"{text}":1}}', f'{{"a":[{{"b":"x{text}"}}]}}'):
        assert "surrogate" in refused(body.encode())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\uD83D\uDE00", "😀"),
        (r"\ud83d\ude00\ud83d\ude00", "😀😀"),
        (r"\\ud800", r"\ud800"),
        (r"\\\\udc00", r"\\udc00"),
        (r"\u00e9\ud7ff\ue000", "é\ud7ff\ue000"),
        (r"\\\ud83d\ude00", "\\😀"),
    ],
)
def test_pairs_and_escaped_backslashes_pass(text, value):
    """Complete pairs, and text that only looks like an escape, are taken as they are."""
    assert json.loads(bytes(read_object(f'{{"a":"{text}"}}'.encode())["a"])) == value


@pytest.mark.parametrize("bad", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80"])
def test_invalid_utf8_is_refused(bad):
    """Bytes that are no UTF-8, raw surrogates included, are refused with their place."""
    assert refused(b'{"a":"' + bad + b'"}') == "the body is not valid UTF-8 (byte 6)"


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":-Infinity}',
        b'{"a":01}',
        b'{"a":1.}',
        b'{"a":+1}',
        b'{"a":.5}',
        b'{"a":0x1}',
        b'{"a":tru}',
        b"{\"a\":'x'}",
        b'{"a":1,}',
        b'{"a":[1,]}',
        b'{"a" 1}',
        b"{a:1}",
        b'{"a":1} x',
        b'{"a":1}{}',
        b"{}[]",
        b'{"a":1',
        b'{"a":"x}',
        b'{"a":[}]',
        b'{"a":[1}',
        b"}{",
        b'{"a":"\n"}',
        b'{"a":"\x00"}',
        b'{"a":"\\q"}',
        b'{"a":"\\u12g4"}',
        b'{"a":{"b":"\\q"}}',
        b'{"a":1}//x',
        b"<html></html>",
    ],
)
def test_what_is_no_json_is_refused(body):
    """Every departure from the JSON grammar is refused, also deep inside a field nobody reads."""
    assert refused(body)


def test_big_numbers_pass_untouched():
    """Numbers beyond any machine type are handed on with every digit."""
    body = b'{"a":123456789012345678901234567890,"b":1e999,"c":-0.10}'
    assert {key: bytes(raw) for key, raw in read_object(body).items()} == {
        "a": b"123456789012345678901234567890",
        "b": b"1e999",
        "c": b"-0.10",
    }


@pytest.mark.parametrize(
    ("body", "most_s"),
    [
        (b'{"a":[' + b'"some words and so on","",' * 38_000 + b"1]}", 0.05),
        (b'{"a":"' + b"x" * 1_000_000 + b'\\u00e9"}', 0.05),
        (b'{"a":"' + b'\\"\\\\[{' * 170_000 + b'"}', 0.05),
        (b'{"a":[' + (b"[" * 62 + b"]" * 62 + b",") * 8000 + b"1]}", 0.25),
        (b'{"a":[' + b'{"b":1},' * 125_000 + b"1]}", 0.25),
        (nested(500_000), 0.25),
        (b'{"a":' + b"[" * 1_000_000, 0.25),
        (b'{"a":"' + b"\\" * 1_000_000 + b'"}', 0.05),
        (b'{"a":"' + b"\\ud83d\\ude00" * 83_000 + b'"}', 0.25),
    ],
    ids=["strings", "long", "escapes", "wide", "objects", "deep", "open", "backslashes", "pairs"],
)
def test_a_megabyte_is_read_quickly(body, most_s):
    """A megabyte of anything is checked within its bound, at least once in a few tries."""
    took_s = []
    for _ in range(5):
        started = time.perf_counter()
        with contextlib.suppress(InvalidRequest):
            read_object(body)
        took_s.append(time.perf_counter() - started)
    assert min(took_s) < most_s


class _Inner(Struct):
    number: int


class _Outer(Struct):
    items: list[_Inner]
    name: str = ""


_decoder = msgspec.json.Decoder(_Outer)


@pytest.mark.parametrize(
    ("body", "where", "param", "message"),
    [
        (b'{"items":[{"number":1},{"number":"x"}]}', "", "items[1].number", "expected `int`, got `str`"),
        (b'{"items":[{}]}', "", "items[0].number", "required field is missing"),
        (b"{}", "", "items", "required field is missing"),
        (b"{}", "body", "body.items", "required field is missing"),
        (b'{"items":[],"name":1}', "a[0]", "a[0].name", "expected `str`, got `int`"),
        (b"[]", "a", "a", "expected `object`, got `array`"),
    ],
)
def test_faults_name_their_place(body, where, param, message):
    """A fault names the wire path of the field, below the path that was given."""
    with pytest.raises(InvalidRequest) as caught:
        read_as(_decoder, body, where=where)
    assert (caught.value.param, caught.value.message) == (param, f"{param}: {message}")


def test_a_fault_of_the_whole_has_no_place():
    """A fault of the whole body names no field."""
    with pytest.raises(InvalidRequest) as caught:
        read_as(_decoder, b"[]")
    assert (caught.value.param, caught.value.message) == (None, "expected `object`, got `array`")
    with pytest.raises(InvalidRequest, match="not valid JSON"):
        read_as(_decoder, b"{")
    assert split_location("Expected `int`") == ("expected `int`", "")


def test_absent_and_null_are_not_given():
    """A raw field counts as given unless it is absent or null."""
    fields = read_object(b'{"a": null , "b": 0, "c": "", "d": {}}')
    assert [is_given(fields[key]) for key in "abcd"] == [False, True, True, True]
    assert not is_given(ABSENT)
    assert given_or_none(fields["a"]) is None
    assert given_or_none(fields["b"]) is fields["b"]
