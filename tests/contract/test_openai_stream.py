"""Contract of the OpenAI dialect's streams: read from providers, passed on or translated, written to callers."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.dialects import openai
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_errors import encode_error
from llm_gate.dialects.openai_stream import ChunkEncoder, OpenAIChatStream, encode_stream_error
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from llm_gate.domain.events import (
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
    Verbatim,
    VerbatimUsage,
)
from llm_gate.domain.pricing import Cost, CostLine, Price
from llm_gate.domain.usage import Usage
from support.figures import property_of
from support.targets import make_target

DONE = b"data: [DONE]\n\n"
COUNTS = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
USAGE = Usage(input_tokens=3, output_tokens=2)
LENIENT = ProviderSpec(dialect="openai", finish_is_end=True)


def line(body):
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta=None, finish=None, index=0, **fields):
    choice = {"index": index, "delta": delta or {}, "finish_reason": finish}
    return line({"id": "c1", "created": 7, "model": "m-1", "choices": [choice], **fields})


def usage_chunk(**fields):
    return line({"id": "c1", "choices": [], "usage": COUNTS, **fields})


def read(data, *, verbatim=False, spec=None, portions=None):
    reader = OpenAIChatStream(make_target(spec=spec), verbatim=verbatim)
    events = [event for portion in portions or [data] for event in reader.feed(portion)]
    return events + list(reader.close())


def fails(data, expected=BadProviderResponse, spec=None):
    for verbatim in (False, True):
        with pytest.raises(expected) as caught:
            read(data, verbatim=verbatim, spec=spec)
        assert type(caught.value) is expected


def price(usage):
    one = Price(id="p", unit="input_tokens", per=1, nanos=1)
    return Cost(lines=(CostLine(price=one, quantity=1, nanos=usage.total_tokens * 100),))


def write(events, *, include_usage=True, unpriced=False):
    encoder = ChunkEncoder(
        fallback_id="f",
        model="m",
        created_s=1,
        include_usage=include_usage,
        price=(lambda _: None) if unpriced else price,
    )
    return encoder.encode(events)


def chunks(data):
    assert data.endswith(DONE)
    return [json.loads(event[6:]) for event in data.removesuffix(DONE).split(b"\n\n") if event]


PLAIN = (
    chunk({"role": "assistant", "content": ""})
    + chunk({"content": "Größe "})
    + chunk({"content": "🙂"})
    + chunk(finish="stop")
    + usage_chunk()
    + DONE
)
PLAIN_EVENTS = [
    Started(id="c1", model="m-1", created_s=7),
    TextDelta(text="Größe "),
    TextDelta(text="🙂"),
    Finished(reason="stop"),
    UsageReported(usage=USAGE),
    Ended(),
]

# Reading


def test_a_plain_stream_translated():
    """Deltas, finish reason, usage and the end come out in the order of the wire."""
    assert read(PLAIN) == PLAIN_EVENTS


def test_a_plain_stream_passed_on():
    """For a caller of the dialect the bytes pass as they are, but for the event with the usage and the end."""
    events = read(PLAIN, verbatim=True)
    assert (
        b"".join(event.data for event in events if isinstance(event, Verbatim))
        == PLAIN[: PLAIN.index(b'data: {"id": "c1", "choices": []')]
    )
    assert [type(event) for event in events] == [Verbatim, VerbatimUsage, Ended]
    assert events[1].usage == USAGE


@property_of()
@given(places=st.lists(st.integers(min_value=0, max_value=len(PLAIN)), max_size=25))
def test_portions_do_not_matter(places):
    """However the bytes are portioned, the translated events are the same."""
    edges = [0, *sorted(places), len(PLAIN)]
    portions = [PLAIN[a:b] for a, b in pairwise(edges)]
    assert read(PLAIN, portions=portions) == PLAIN_EVENTS
    passed = read(PLAIN, verbatim=True, portions=portions)
    assert write(passed) == write(read(PLAIN, verbatim=True))


def test_every_cut_is_an_error():
    """A stream that ends anywhere before its terminal event is never complete."""
    for place in range(PLAIN.index(b"[DONE]") + len(b"[DONE")):
        fails(PLAIN[:place])


@pytest.mark.parametrize(
    "end", [b"data: [DONE]", b"data: [DONE]\n", b"data:[DONE]\r\n\r\n", b"data: [DONE] \n\n: bye\n\n"]
)
def test_spellings_of_the_end(end):
    """The terminal event counts however it is spelt, and nothing after it does."""
    data = PLAIN.removesuffix(DONE) + end
    assert read(data) == PLAIN_EVENTS
    assert read(PLAIN + chunk({"content": "late"}) + line({"error": "late"})) == PLAIN_EVENTS


@pytest.mark.parametrize(
    "data", [b"", DONE, b": ping\n\n" + DONE, usage_chunk() + DONE, b"\n\n", b"hello\n\n"]
)
def test_a_stream_without_choices_is_no_answer(data):
    """An end with nothing before it is a bad response, not an empty answer."""
    fails(data)


@pytest.mark.parametrize(
    "data",
    [
        b"<html><body>busy</body></html>",
        b"{}",
        b"null",
        b"[]",
        json.dumps({"id": "x", "choices": [{"message": {"content": "unary"}}]}).encode(),
        chunk({"content": "a"}) + b"data: {oops\n\n" + DONE,
        chunk({"content": "a"}) + b"data: []\n\n" + DONE,
        chunk({"content": 5}) + DONE,
        chunk({"content": "a"}, finish="error") + DONE,
        b"data: " + b"x" * (1024 * 1024 + 1) + b"\n\n",
    ],
    ids=["html", "object", "null", "array", "unary", "broken", "list", "type", "model-error", "giant"],
)
def test_what_is_no_stream_is_refused(data):
    """HTML, plain JSON, broken events and giant ones are bad responses."""
    fails(data)


ERROR = {"message": "slow down", "type": "rate_limit_error", "code": "rate_limit_exceeded"}


@pytest.mark.parametrize(
    "data",
    [
        line({"error": ERROR}),
        b"event: error\n" + line({"error": ERROR}),
        b"event: error\n" + line(ERROR),
        json.dumps({"error": ERROR}).encode(),
        json.dumps({"error": ERROR}, indent=2).encode() + b"\n",
        line({"object": "error", **ERROR}),
        line({"error": ERROR, "choices": [{"index": 0, "delta": {"content": ""}}], "usage": COUNTS}),
    ],
    ids=["data", "event", "event-flat", "bare", "pretty", "object", "beside-choices"],
)
@pytest.mark.parametrize("before", [b"", chunk({"content": "Hel"}), chunk({"content": "a"}, finish="length")])
@pytest.mark.parametrize("after", [b"", DONE])
def test_errors_in_a_stream(before, data, after):
    """An error inside a stream is that error in every form vendors use, whatever follows it."""
    # Bare JSON is only complete at the end of the bytes.
    fails(before + data + (b"" if data[:1] == b"{" else after), ProviderRateLimited)


def test_what_came_before_an_error_is_not_lost():
    """Portions read before the one with the error have been handed out."""
    reader = OpenAIChatStream(make_target(), verbatim=False)
    assert reader.feed(chunk({"content": "Hel"}))[-1] == TextDelta(text="Hel")
    with pytest.raises(ProviderUnavailable):
        reader.feed(line({"error": {"message": "m"}}))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ({"code": 400, "message": "limit"}, ProviderRejected),
        ({"code": "content_filter", "message": "m"}, ContentFiltered),
        ("down", ProviderUnavailable),
        ({"type": "invalid_request_error", "code": "tool_use_failed", "status_code": 400}, ProviderRejected),
    ],
)
def test_kinds_of_errors_in_a_stream(error, expected):
    """The error's own words decide its class."""
    fails(chunk({"content": "a"}) + line({"error": error}), expected)


# Vendors that end without a marker


def test_a_finish_reason_ends_only_lenient_vendors():
    """Where the vendor is known to send no marker the finish reason is the end; elsewhere it is a cut."""
    data = PLAIN.removesuffix(DONE)
    assert read(data, spec=LENIENT) == PLAIN_EVENTS
    assert read(PLAIN, spec=LENIENT) == PLAIN_EVENTS
    assert [type(event) for event in read(data, spec=LENIENT, verbatim=True)] == [
        Verbatim,
        VerbatimUsage,
        Ended,
    ]
    fails(data)


def test_lenient_vendors_can_be_cut_too():
    """Before the finish reason of every choice even a lenient vendor's stream is incomplete."""
    data = PLAIN.removesuffix(DONE)
    for place in range(data.index(b'"stop"') + 1):
        fails(data[:place], spec=LENIENT)
    two = chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk(finish="stop", index=1)
    fails(two, spec=LENIENT)
    assert read(two + chunk(finish="stop"), spec=LENIENT)[-1] == Ended()


# Odd vendors


def test_several_choices():
    """Choices are kept apart by their index."""
    data = chunk({"content": "a"}) + chunk({"content": "b"}, index=1) + chunk(finish="length", index=1)
    assert read(data + chunk(finish="stop") + DONE)[1:] == [
        TextDelta(text="a"),
        TextDelta(text="b", index=1),
        Finished(reason="length", index=1),
        Finished(reason="stop"),
        Ended(),
    ]


def test_one_finish_per_choice():
    """A repeated finish reason counts once, a trailing delta opens nothing, and a missing one is a plain stop."""
    data = chunk({"content": "a"}) + chunk(finish="length") + chunk(finish="length", usage=COUNTS) + chunk({})
    expected = [TextDelta(text="a"), Finished(reason="length"), UsageReported(usage=USAGE), Ended()]
    assert read(data + DONE)[1:] == expected
    assert read(data, spec=LENIENT)[1:] == expected
    assert read(chunk({"content": "a"}) + DONE)[1:] == [TextDelta(text="a"), Finished(reason="stop"), Ended()]


def test_comments_and_first_events_without_choices():
    """Keep-alive comments mean nothing, and events without choices do not break the stream."""
    first = line({"id": "", "choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    data = b": ping\n\n" + first + b": ping\n\n" + PLAIN
    assert [event for event in read(data) if not isinstance(event, Started)] == PLAIN_EVENTS[1:]
    assert first in b"".join(event.data for event in read(data, verbatim=True) if isinstance(event, Verbatim))


def test_thoughts_refusals_and_parts():
    """Reasoning and refusals are found wherever vendors put them in a delta."""
    data = b"".join(
        chunk(delta)
        for delta in (
            {"reasoning_content": "r1"},
            {"reasoning": "r2", "content": ""},
            {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "r3"}]}]},
            {"content": [{"type": "text", "text": "t"}]},
            {"refusal": "No."},
        )
    )
    assert read(data + chunk(finish="stop") + DONE)[1:-2] == [
        ThinkingDelta(text="r1"),
        ThinkingDelta(text="r2"),
        ThinkingDelta(text="r3"),
        TextDelta(text="t"),
        TextDelta(text="No.", refusal=True),
    ]


def call(index=None, one=None, name=None, arguments=None, choice=0):
    function = {
        key: value for key, value in {"name": name, "arguments": arguments}.items() if value is not None
    }
    body = {"index": index, "id": one, "function": function}
    return chunk(
        {"tool_calls": [{key: value for key, value in body.items() if value is not None}]}, index=choice
    )


A, B = (
    ToolCallDelta(call=0, id="a", name="f", arguments="{}"),
    ToolCallDelta(call=1, id="b", name="g", arguments="{}"),
)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (
            [call(0, "a", "f", ""), call(0, arguments="{"), call(0, arguments="}"), call(1, "b", "g", "{}")],
            [
                ToolCallDelta(call=0, id="a", name="f"),
                ToolCallDelta(call=0, arguments="{"),
                ToolCallDelta(call=0, arguments="}"),
                B,
            ],
        ),
        ([call(None, "a", "f", "{}"), call(None, "b", "g", "{}")], [A, B]),
        ([call(0, "a", "f", "{}"), call(0, "b", "g", "{}")], [A, B]),
        (
            [call(None, "a", "f", "{"), call(None, arguments="}"), call(None, "b", "g", "{}")],
            [ToolCallDelta(call=0, id="a", name="f", arguments="{"), ToolCallDelta(call=0, arguments="}"), B],
        ),
        (
            [call(0, "a", "f", "{"), call(0, "a", "f", "}"), call(1, "b", "g", "{}")],
            [ToolCallDelta(call=0, id="a", name="f", arguments="{"), ToolCallDelta(call=0, arguments="}"), B],
        ),
        (
            [call(None, None, "f", "{}"), call(None, None, "g", "{}")],
            [
                ToolCallDelta(call=0, id="call_0", name="f", arguments="{}"),
                ToolCallDelta(call=1, id="call_1", name="g", arguments="{}"),
            ],
        ),
        (
            [call(5, "a", "f", "{"), call(9, "b", "g", "{}"), call(5, arguments="}")],
            [ToolCallDelta(call=0, id="a", name="f", arguments="{"), B, ToolCallDelta(call=0, arguments="}")],
        ),
        (
            [call(0, "a", "f", "{}"), call(0, "b", "g", "{}", choice=1)],
            [A, ToolCallDelta(call=0, id="b", name="g", arguments="{}", index=1)],
        ),
    ],
    ids=["indexed", "no-index", "one-index", "no-index-pieces", "repeated-id", "nothing", "gaps", "choices"],
)
def test_tool_calls_in_pieces(data, events):
    """The pieces of a call find each other with and without an index or an id, and calls never melt together."""
    data = b"".join(data)
    found = read(data + chunk(finish="tool_calls") + DONE)
    assert [event for event in found if isinstance(event, ToolCallDelta)] == events


def test_calls_without_an_index_get_one():
    """A caller of the dialect always finds an index on the pieces of a call, and its kind on the first."""
    data = call(None, "a", "f", "{") + call(None, arguments="}") + call(None, "b", "g", "{}")
    written = chunks(write(read(data + chunk(finish="tool_calls") + DONE, verbatim=True)))
    assert [piece for event in written for piece in event["choices"][0]["delta"].get("tool_calls", ())] == [
        {"type": "function", "id": "a", "function": {"name": "f", "arguments": "{"}, "index": 0},
        {"function": {"arguments": "}"}, "index": 0},
        {"type": "function", "id": "b", "function": {"name": "g", "arguments": "{}"}, "index": 1},
    ]


def test_a_choice_without_a_delta_gets_one():
    """A caller of the dialect always finds a delta, and text where a vendor sent parts."""
    bare = line({"id": "c1", "choices": [{"index": 0, "finish_reason": None}]})
    parts = chunk({"content": [{"type": "text", "text": "a"}]})
    written = chunks(write(read(bare + parts + chunk(finish="stop") + DONE, verbatim=True)))
    assert [event["choices"][0]["delta"] for event in written] == [{}, {"content": "a"}, {}]


def test_parallel_calls_in_one_event():
    """Several calls in one event without an index are several calls."""
    calls = [
        {"id": one, "function": {"name": name, "arguments": "{}"}} for one, name in (("a", "f"), ("b", "g"))
    ]
    found = read(chunk({"tool_calls": calls}) + chunk(finish="tool_calls") + DONE)
    assert [event for event in found if isinstance(event, ToolCallDelta)] == [A, B]


def test_usage_in_an_object_aside():
    """Counts that a vendor puts into an object of its own are found, translated and passed on."""
    data = chunk({"content": "a"}) + chunk(finish="stop", x_vendor={"id": "r", "usage": COUNTS}) + DONE
    assert UsageReported(usage=USAGE) in read(data)
    last = chunks(write(read(data, verbatim=True)))[-1]
    assert (last["usage"]["prompt_tokens"], last["usage"]["cost"]) == (3, 0.0000005)
    assert "usage" not in chunks(write(read(data, verbatim=True), include_usage=False))[-1]
    assert read(chunk({"content": '"x_'}, x_a=None, x_b=1) + DONE)[1] == TextDelta(text='"x_')


# Writing


def test_a_stream_passed_on_as_written():
    """A caller who asked for usage gets the vendor's own events with the cost, and the end."""
    written = chunks(write(read(PLAIN, verbatim=True)))
    original = chunks(PLAIN)
    assert written[:-1] == original[:-1]
    assert written[-1] == {**original[-1], "usage": {**COUNTS, "cost": 0.0000005}}
    unpriced = chunks(write(read(PLAIN, verbatim=True), unpriced=True))
    assert unpriced[-1]["usage"] == {**COUNTS, "cost": None}


def test_usage_is_kept_from_who_did_not_ask():
    """A caller who did not ask gets no usage: the event without choices goes, one with choices stays."""
    assert chunks(write(read(PLAIN, verbatim=True), include_usage=False)) == chunks(PLAIN)[:-1]
    data = chunk({"content": "a"}, usage=COUNTS) + chunk(finish="stop", usage=COUNTS) + DONE
    written = chunks(write(read(data, verbatim=True), include_usage=False))
    assert [event["choices"][0]["delta"] for event in written] == [{"content": "a"}, {}]
    assert all("usage" not in event for event in written)
    priced = chunks(write(read(data, verbatim=True)))
    assert [event["usage"]["cost"] for event in priced] == [0.0000005, 0.0000005]


def test_a_translated_stream_as_written():
    """Neutral events become chunks: the role once per choice, one finish reason, usage last, then the end."""
    head = {"id": "c1", "object": "chat.completion.chunk", "created": 7, "model": "m-1"}

    def one(delta, finish=None):
        return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}

    assert chunks(write(PLAIN_EVENTS)) == [
        one({"role": "assistant", "content": "Größe "}),
        one({"content": "🙂"}),
        one({}, "stop"),
        {
            **head,
            "choices": [],
            "usage": {
                **COUNTS,
                "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
                "cost": 0.0000005,
            },
        },
    ]
    assert len(chunks(write(PLAIN_EVENTS, include_usage=False))) == 3
    assert len(chunks(write([*PLAIN_EVENTS[:4], Ended()]))) == 3


def test_only_the_last_count_is_written():
    """Of several reports of usage the last counts, in one event."""
    later = UsageReported(usage=Usage(input_tokens=9, output_tokens=9))
    written = chunks(write([UsageReported(usage=USAGE), *PLAIN_EVENTS[:5], later, Ended()]))
    assert [event["usage"]["prompt_tokens"] for event in written if "usage" in event] == [9]


@property_of()
@given(
    events=st.lists(
        st.builds(
            TextDelta, text=st.text(min_size=1, max_size=5), index=st.integers(0, 1), refusal=st.booleans()
        )
        | st.builds(ThinkingDelta, text=st.text(min_size=1, max_size=5), index=st.integers(0, 1)),
        min_size=1,
        max_size=12,
    ),
    reason=st.sampled_from(["stop", "length", "tool_calls", "content_filter"]),
)
def test_written_streams_read_back(events, reason):
    """What is written from neutral events reads back as the same events; our cost is then the vendor's own."""
    ends = [Finished(reason=reason, index=index) for index in sorted({event.index for event in events})]
    stream = [Started(id="c", model="m", created_s=5), *events, *ends]
    priced = Usage(input_tokens=3, output_tokens=2, vendor_cost_nanos=500)
    written = write([*stream, UsageReported(usage=USAGE), Ended()])
    assert read(written) == [*stream, UsageReported(usage=priced), Ended()]


def test_written_tool_calls_read_back():
    """Calls, with ids, names, signatures and arguments in pieces, read back as they were."""
    calls = [
        ToolCallDelta(call=0, id="a", name="f", signature="sig"),
        ToolCallDelta(call=0, arguments='{"x":'),
        ToolCallDelta(call=1, id="b", name="g", arguments="{}"),
        ToolCallDelta(call=0, arguments="1}"),
    ]
    stream = [Started(id="c", model="m", created_s=5), *calls, Finished(reason="tool_calls"), Ended()]
    assert read(write(stream)) == stream


def test_what_the_vendor_did_not_say_is_filled_in():
    """Id, model and time stand in where no start was said."""
    (first,) = chunks(write([Finished(reason="stop"), Ended()]))
    assert (first["id"], first["model"], first["created"]) == ("f", "m", 1)
    assert first["choices"][0]["delta"] == {"role": "assistant"}


def test_an_error_in_a_stream_as_written():
    """An error is one event without the terminal event after it."""
    error = encode_error("m", kind="server_error", code="c", param=None)
    data = encode_stream_error(error)
    assert data == b'data: {"error":{"message":"m","type":"server_error","param":null,"code":"c"}}\n\n'


def test_who_gets_verbatim_events():
    """Only a caller of the same dialect gets wire bytes."""
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
    reader = openai.provider.chat.open_stream(decode_chat_request(body), make_target())
    assert isinstance(reader.feed(PLAIN)[0], Verbatim)
