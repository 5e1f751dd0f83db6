"""Promises of the event-stream parser."""

import json
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.dialects._sse import MAX_EVENT_BYTES, EventTooLargeError, SseParser
from support.figures import property_of

STREAM = (
    ': hello\n\nevent: note\ndata: {"text": "größer 🙂"}\n\n'
    "data: one\ndata: two\nid: 7\nretry: 5\n\n"
    "data:tight\n\nnonsense line\n\n"
    'data: last\n\n{"error": {"message": "später"}}\n\n'
)
EVENTS = [
    (b"", b"", False),
    (b"note", '{"text": "größer 🙂"}'.encode(), False),
    (b"", b"one\ntwo", False),
    (b"", b"tight", False),
    (b"", b"", False),
    (b"", b"last", False),
    (b"", '{"error": {"message": "später"}}'.encode(), True),
]


def parse(portions):
    parser = SseParser()
    found = [event for portion in portions for event in parser.feed(portion)]
    return found + parser.flush()


def seen(portions):
    return [(event.event, event.data, event.bare) for event in parse(portions)]


def cut(data, places):
    edges = [0, *sorted(places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_every_split_offset_gives_the_same_events(line_end):
    """Wherever two portions meet, in a line end or inside a character, the events are the same."""
    data = STREAM.replace("\n", line_end).encode()
    for place in range(len(data) + 1):
        assert seen([data[:place], data[place:]]) == EVENTS


@property_of()
@given(
    ends=st.lists(st.sampled_from(["\n", "\r\n", "\r"]), min_size=1, max_size=12),
    places=st.lists(st.integers(min_value=0, max_value=400), max_size=30),
)
def test_mixed_line_ends_and_any_portions(ends, places):
    """Line ends may change from line to line and portions may be anything."""
    lines = STREAM.split("\n")
    mixed = "".join(f"{line}{ends[i % len(ends)]}" for i, line in enumerate(lines[:-1]))
    # A CR followed by the LF of the next, empty line is one line end by definition.
    if not _ambiguous(lines, ends):
        data = mixed.encode()
        assert seen(cut(data, [min(place, len(data)) for place in places])) == EVENTS


def _ambiguous(lines, ends):
    used = [ends[i % len(ends)] for i in range(len(lines))]
    return any(used[i] == "\r" and lines[i + 1] == "" and used[i + 1] == "\n" for i in range(len(lines) - 1))


@property_of()
@given(portions=st.lists(st.binary(max_size=40), max_size=20))
def test_random_bytes_never_fail(portions):
    """Bytes that are no event stream are cut without an error, and alike however they are portioned."""
    assert seen(portions) == seen([b"".join(portions)])


@property_of(most=2_000)
@given(
    texts=st.lists(st.text(max_size=60), min_size=1, max_size=8),
    places=st.lists(st.integers(min_value=0, max_value=3000), max_size=20),
)
def test_any_json_text_survives(texts, places):
    """JSON written into events comes out as it went in, byte by byte or in any portions."""
    data = b"".join(b"data: " + json.dumps(text, ensure_ascii=False).encode() + b"\n\n" for text in texts)
    portions = cut(data, [min(place, len(data)) for place in places])
    assert [json.loads(event.data) for event in parse(portions)] == texts
    assert [json.loads(event.data) for event in parse([bytes([one]) for one in data])] == texts


def test_raw_bytes_make_up_the_stream():
    """The raw bytes of the events, joined, are the stream itself, so that forwarding changes nothing."""
    assert b"".join(event.raw for event in parse([STREAM.encode()])) == STREAM.encode()


@pytest.mark.parametrize("place", range(5))
def test_byte_order_mark_is_skipped_once(place):
    """A byte order mark at the start, also split, is no part of the first event; a later one is."""
    data = b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbfb\n\n"
    assert [event.data for event in parse([data[:place], data[place:]])] == [b"a", b"\xef\xbb\xbfb"]


def test_start_of_a_mark_alone_is_kept():
    """Bytes that only begin like a byte order mark are not lost."""
    assert [event.raw for event in parse([b"\xef\xbb"])] == [b"\xef\xbb\n\n"]


def test_empty_portions_and_blank_lines_mean_nothing():
    """Empty portions and extra blank lines yield no events."""
    assert seen([b"", b"\n\n\n", b"", b"data: a\n", b"", b"\n\n\n\n\n", b"data: b\n\n\n"]) == [
        (b"", b"a", False),
        (b"", b"b", False),
    ]


@pytest.mark.parametrize("end", [b"", b"\n", b"\r", b"\r\n", b"\n\n"])
def test_last_blank_line_may_be_missing(end):
    """What stands after the last blank line is an event when the bytes end."""
    assert seen([b"data: a\n\ndata: b" + end]) == [(b"", b"a", False), (b"", b"b", False)]


@pytest.mark.parametrize("indent", [None, 2])
def test_bare_json_is_marked(indent):
    """A JSON object outside the protocol, also over several lines, comes out whole and marked as bare."""
    document = {"error": {"message": "overloaded", "code": 503}}
    data = b"data: a\n\n" + json.dumps(document, indent=indent).encode()
    for place in range(len(data)):
        first, bare = parse([data[:place], data[place:]])
        assert (first.data, first.bare) == (b"a", False)
        assert (json.loads(bare.data), bare.bare) == (document, True)


def test_fields_after_the_colon():
    """One space after the colon belongs to the syntax; a field without a colon is empty; order is free."""
    assert seen([b"event:  error \ndata\ndata: x\n\n"]) == [(b"error", b"\nx", False)]


def test_event_of_the_largest_size_passes():
    """An event as large as the limit is handed out, however small the portions were, in linear time."""
    data = b"data: " + b"x" * (MAX_EVENT_BYTES - 6) + b"\n\n"
    started = time.perf_counter()
    (event,) = parse([data[i : i + 64] for i in range(0, len(data), 64)])
    assert time.perf_counter() - started < 2.0
    assert len(event.data) == MAX_EVENT_BYTES - 6


@pytest.mark.parametrize("portion_bytes", [4096, 10**9])
def test_larger_events_are_refused(portion_bytes):
    """An event beyond the limit is refused as soon as the limit is passed, complete or not."""
    for end in (b"", b"\n\n"):
        data = b"data: " + b"x" * MAX_EVENT_BYTES + end
        with pytest.raises(EventTooLargeError):
            parse([data[i : i + portion_bytes] for i in range(0, len(data), portion_bytes)])


def test_many_small_events_are_no_large_one():
    """The limit counts one event, not the stream or a portion."""
    data = b"data: 0123456789\n\n" * 100_000
    assert len(parse([data])) == 100_000
