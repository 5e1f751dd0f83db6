"""`LLMGate` and its blocking twin: conversations, streams, vectors, quotes and the status, over a fake vendor."""

import asyncio
import gc
import json
import time
from decimal import Decimal

import pytest

from llm_gate import BlockingLLMGate, GateError, LLMGate, QuotaExceeded, Source
from llm_gate.domain.errors import AllAttemptsFailed, InvalidRequest
from llm_gate.domain.events import Finished, TextDelta, ToolCallDelta, UsageReported
from support.programs import openai_says, run_program
from support.upstream import Answer, fake_upstream

TOML = """
    [providers.first]
    dialect = "openai"
    base_url = "{url}/first/v1"
    auth = {{ kind = "none" }}
    defaults = {{ chat = "m" }}
    [[providers.first.models]]
    name = "m"
    operations = ["chat"]
    max_output_tokens = 1000
    prices = [
        {{ unit = "input_tokens", per = 1_000_000, usd = "1" }},
        {{ unit = "output_tokens", per = 1_000_000, usd = "2" }},
    ]

    [providers.second]
    dialect = "openai"
    base_url = "{url}/second/v1"
    auth = {{ kind = "none" }}
    defaults = {{ chat = "m" }}

    [providers.third]
    dialect = "anthropic"
    base_url = "{url}/third"
    auth = {{ kind = "none" }}
    defaults = {{ chat = "c" }}

    [plans]
    default = "small"
    [plans.custom.small.limits]
    text_calls = 40
"""


def refuses(status, code=None):
    return Answer.json({"error": {"message": "no", "type": "x", "code": code}}, status)


def event(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + json.dumps({"id": "c", "choices": [choice], **more}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
END = (
    event({}, "stop"),
    b'data: {"id":"c","choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n",
    b"data: [DONE]\n\n",
)


@pytest.fixture(scope="module")
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture
def source(tmp_path, upstream):
    (tmp_path / "llm-gate.toml").write_text(TOML.format(url=upstream.url))
    return Source(config_file=tmp_path / "llm-gate.toml", overrides={"data_dir": tmp_path / "data"})


@pytest.fixture
def gate(source):
    with BlockingLLMGate(source) as opened:
        yield opened


def in_asyncio(source, work):
    """Do something with an open gate in an event loop of this thread."""

    async def main():
        async with LLMGate(source) as gate:
            return await work(gate)

    return asyncio.run(main())


# --- Chats


def test_a_prompt(gate, upstream):
    """A prompt goes out as it is, without words or settings of our own; the answer says all that is known of it."""
    upstream.will(openai_says("Hi"))
    answer = gate.chat("Hello", user_id="ann", model="first")

    assert (answer.text, answer.finish_reason) == ("Hi", "stop")
    assert (answer.provider, answer.model, answer.attempts, answer.tried) == ("first", "m", 1, ())
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 20)
    assert (answer.cost_usd, answer.cost_nanos) == (Decimal("0.00005"), 50_000)
    assert upstream.only.json == {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}


def test_a_conversation_loses_nothing(gate, upstream):
    """Messages and further fields reach a provider of the format as they were given."""
    upstream.will(openai_says("Hi"))
    messages = [
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hello", "odd": 1}]},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": "Go on"},
    ]
    gate.chat(
        messages,
        user_id="ann",
        model="first/m",
        system="Be brief.",
        temperature=0.5,
        max_tokens=70,
        stop=["."],
        seed=7,
        more={"logit_bias": {"5": 1}, "frequency_penalty": 0.5},
    )
    body = upstream.only.json

    assert body["messages"] == [{"role": "system", "content": "Be brief."}, *messages]
    assert (body["temperature"], body["max_tokens"], body["stop"], body["seed"]) == (0.5, 70, ["."], 7)
    assert (body["logit_bias"], body["frequency_penalty"]) == ({"5": 1}, 0.5)


def test_tools(gate, upstream):
    """What the model asks for is handed out as calls."""
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    upstream.will(
        Answer.json({"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE})
    )
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    answer = gate.chat("Look", user_id="ann", model="first", tools=[tool], tool_choice="auto")

    assert (answer.text, answer.finish_reason) == ("", "tool_calls")
    assert [(each.id, each.name, each.arguments) for each in answer.tool_calls] == [
        ("c1", "look", '{"at":1}')
    ]


def test_an_object(gate, upstream):
    """With a form the answer is checked, asked for again if need be, and parsed; all of it is paid."""
    upstream.will(openai_says('{"city": 1}'), openai_says('{"city": "Oslo"}'))
    answer = gate.chat("Which?", user_id="ann", model="first", json_struct={"city": "string"})

    assert answer.parsed == {"city": "Oslo"}
    assert answer.attempts == 2
    assert answer.cost_nanos == 100_000


def test_fallbacks(gate, upstream):
    """Names are tried in their order, and the answer tells what failed before; unusable ones are passed by."""
    upstream.will(refuses(429, "insufficient_quota"), openai_says("Hi"))
    answer = gate.chat("Hello", user_id="ann", model="first", fallbacks=["gemini", "second"])

    assert answer.provider == "second"
    assert [each.code for each in answer.tried if each.was_called] == ["insufficient_quota"]
    assert [seen.path.split("/")[1] for seen in upstream.seen] == ["first", "second"]


def test_nobody_answers(gate, upstream):
    """Where nobody answers, the error has every provider's own."""
    upstream.will(refuses(401))
    with pytest.raises(AllAttemptsFailed) as caught:
        gate.chat("Hello", user_id="ann", model="first", fallbacks=["second"])

    assert [each.provider for each in caught.value.errors] == ["first", "second"]


def test_a_call_may_be_bounded_in_time(gate, upstream):
    """A call ends when its time is over."""
    upstream.will(Answer(delay_s=3))
    began_s = time.monotonic()
    with pytest.raises(GateError) as caught:
        gate.chat("Hello", user_id="ann", model="first", timeout_s=0.2)

    assert caught.value.code == "provider_timeout"
    assert time.monotonic() - began_s < 2


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"messages": ""}, ValueError),
        ({"messages": []}, ValueError),
        ({"messages": [{"role": "nobody", "content": "x"}]}, InvalidRequest),
        ({"messages": "x", "temperature": 9}, InvalidRequest),
        ({"messages": "x", "temprature": 1}, TypeError),
        ({"messages": "x", "max_tokens": 0}, ValueError),
        ({"messages": "x", "timeout_s": 0}, ValueError),
        ({"messages": "x", "fallbacks": "second"}, TypeError),
        ({"messages": "x", "more": {"model": "other"}}, ValueError),
        ({"messages": "x", "more": {"metadata": object()}}, TypeError),
        ({"messages": "\ud800"}, ValueError),
        ({"messages": "x", "user_id": ""}, RuntimeError),
        ({"messages": "x", "user_id": "a" * 257}, ValueError),
    ],
)
def test_mistakes_are_raised_before_anything_is_sent(gate, upstream, given, kind):
    """What is wrong with a call is said at once."""
    upstream.will(openai_says("Hi"))
    with pytest.raises(kind):
        gate.chat(**{"user_id": "ann", "model": "first", **given})
    assert upstream.seen == []


def test_limits_hold(source, upstream, tmp_path):
    """A refusal is the library's own, as for `llm_text_gen`."""
    config = tmp_path / "llm-gate.toml"
    config.write_text(config.read_text().replace("text_calls = 40", "text_calls = 1"))
    upstream.will(openai_says("Hi"))
    with BlockingLLMGate(source) as gate:
        gate.chat("Hello", user_id="ann", model="first")
        with pytest.raises(QuotaExceeded) as caught:
            gate.chat("Hello", user_id="ann", model="first")
        with pytest.raises(QuotaExceeded), gate.stream("Hello", user_id="ann", model="first"):
            pass
        refused = gate.quote("Hello", user_id="ann", model="first")

    assert caught.value.status_code == 429
    assert caught.value.detail["usage_info"]["limit"] == 1
    assert (refused.allowed, refused.code) == (False, "quota_exceeded")
    assert refused.reason
    assert len(upstream.seen) == 1


# --- Streams


def test_a_stream(gate, upstream):
    """The pieces of the text come one by one, and the whole is there at the end."""
    upstream.will(
        Answer.events(event({"role": "assistant", "content": "He"}), event({"content": "llo"}), *END)
    )
    with gate.stream("Hi", user_id="ann", model="first", max_tokens=50) as stream:
        assert (stream.provider, stream.model) == ("first", "m")
        with pytest.raises(RuntimeError, match="not complete"):
            _ = stream.answer
        pieces = list(stream)

    assert pieces == ["He", "llo"]
    answer = stream.answer
    assert (answer.text, answer.finish_reason, answer.cost_nanos) == ("Hello", "stop", 50_000)
    assert upstream.only.json["max_tokens"] == 50


def test_everything_that_happens_in_a_stream(source, upstream):
    """The events of a stream are neutral, whatever format its provider speaks; calls are put together."""
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": '{"at":1}'}}
    upstream.will(
        Answer.events(
            event({"tool_calls": [call]}), event({"tool_calls": [more]}), event({}, "tool_calls"), *END[1:]
        )
    )

    async def work(gate):
        async with gate.stream("Hi", user_id="ann", model="first") as stream:
            return [each async for each in stream.events()], stream.answer

    events, answer = in_asyncio(source, work)

    assert {type(each) for each in events} == {ToolCallDelta, Finished, UsageReported}
    assert answer.finish_reason == "tool_calls"
    assert [(each.name, each.arguments) for each in answer.tool_calls] == [("look", '{"at":1}')]


def test_a_stream_of_another_format(source, upstream):
    """A provider of another format streams alike."""
    told = [
        {
            "type": "message_start",
            "message": {"id": "m", "role": "assistant", "model": "c", "usage": {"input_tokens": 3}},
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hi"}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 4}},
        {"type": "message_stop"},
    ]
    pieces = [f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in told]
    upstream.will(Answer.events(*pieces))

    async def work(gate):
        async with gate.stream("Hi", user_id="ann", model="third", max_tokens=9) as stream:
            return [each async for each in stream.events() if isinstance(each, TextDelta)], stream.answer

    events, answer = in_asyncio(source, work)

    assert [each.text for each in events] == ["Hi"]
    assert (answer.text, answer.usage.output_tokens) == ("Hi", 4)


@pytest.mark.parametrize("leave", ["break", "raise", "unread"])
def test_leaving_a_stream_early_stops_the_provider(gate, upstream, leave):
    """Whoever leaves early lets nobody go on sending."""
    endless = [event({"content": "more "}) for _ in range(400)]
    upstream.will(Answer.events(*endless, pause_s=0.02))

    def read():
        with gate.stream("Hi", user_id="ann", model="first") as stream:
            if leave == "unread":
                return
            for _ in stream:
                if leave == "raise":
                    raise KeyError
                break

    if leave == "raise":
        with pytest.raises(KeyError):
            read()
    else:
        read()
    gc.collect()
    deadline = time.monotonic() + 3
    while not upstream.hung_up_at:
        assert time.monotonic() < deadline, "the provider still sends"
        time.sleep(0.02)


def test_a_stream_that_breaks_off_is_an_error(gate, upstream):
    """Half an answer is never handed out as a whole."""
    upstream.will(Answer.events(event({"content": "Half"}), cut=True))
    with gate.stream("Hi", user_id="ann", model="first") as stream:
        pieces = []
        with pytest.raises(GateError):
            pieces.extend(stream)
        with pytest.raises(RuntimeError):
            _ = stream.answer


def test_streamed_objects_are_checked(gate, upstream):
    """An object that fits is parsed at the end."""
    upstream.will(Answer.events(event({"content": '{"city":'}), event({"content": ' "Oslo"}'}), *END))
    with gate.stream("Which?", user_id="ann", model="first", json_struct={"city": "string"}) as stream:
        assert "".join(stream) == '{"city": "Oslo"}'
    assert stream.answer.parsed == {"city": "Oslo"}


# --- Vectors, quotes, the status


def test_vectors(gate):
    """Texts become vectors in their order."""
    answer = gate.embed(["one", "two", "one"], user_id="ann", model="sandbox/embedding", dimensions=8)

    assert [len(vector) for vector in answer.vectors] == [8, 8, 8]
    assert answer.vectors[0] == answer.vectors[2]
    assert (answer.provider, answer.cost_usd) == ("sandbox", 0)
    assert len(gate.embed("one", user_id="ann", model="sandbox/embedding").vectors) == 1


@pytest.mark.parametrize(("texts", "kind"), [([], ValueError), ("", ValueError), ([1], TypeError)])
def test_vectors_of_nothing(gate, texts, kind):
    """What is no text is refused."""
    with pytest.raises(kind):
        gate.embed(texts, user_id="ann", model="sandbox/embedding")


def test_a_quote(gate, upstream):
    """A quote tells what a call may cost, and the call costs no more; nothing is sent for it."""
    upstream.will(openai_says("Hi"))
    quote = gate.quote("Hello " * 20, user_id="ann", model="first", max_tokens=100)

    assert upstream.seen == []
    assert quote.allowed
    assert (quote.provider, quote.model, quote.plan) == ("first", "m", "small")
    assert quote.min_usd <= quote.expected_usd <= quote.max_usd
    assert gate.chat("Hello " * 20, user_id="ann", model="first", max_tokens=100).cost_usd <= quote.max_usd
    assert gate.quote("Hello", user_id="ann", model="second").max_usd is None
    with pytest.raises(GateError, match="not known"):
        gate.quote("Hello", user_id="ann", model="nobody/nothing")


def test_the_status(gate, upstream):
    """The status tells how every place that was called is doing."""
    upstream.will(refuses(401), openai_says("Hi"))
    gate.chat("Hello", user_id="ann", model="first", fallbacks=["second"])
    status = gate.status()

    found = {place.provider: place for place in status.places}
    assert found["first"].vitals.failures == 1
    assert found["second"].vitals.failures == 0
    assert status.primary is not None


# --- In programs


def test_a_gate_must_be_opened(source):
    """An `LLMGate` that is not open says how to open it, and so does a stream."""

    async def main():
        gate = LLMGate(source)
        with pytest.raises(RuntimeError, match="async with"):
            await gate.chat("Hello", user_id="ann")
        stream = gate.stream("Hello", user_id="ann")
        with pytest.raises(RuntimeError, match="async with"):
            _ = stream.provider

    asyncio.run(main())


def test_a_blocking_gate_can_be_closed_and_opened_again(source, upstream):
    """Closing ends its thread and its connections; the next call opens it once more."""
    upstream.will(openai_says("Hi"))
    gate = BlockingLLMGate(source)
    for _ in range(2):
        assert gate.chat("Hello", user_id="ann", model="first").text == "Hi"
        gate.close()
        gate.close()


def test_a_blocking_call_inside_its_own_loop_is_refused(gate):
    """What would wait for itself for ever says so."""

    async def inside(_gate):
        with pytest.raises(RuntimeError, match="wait for itself"):
            gate.status()

    gate.background.run(inside)


def test_a_program_may_end_in_the_middle_of_a_stream(tmp_path):
    """A stream that is left open keeps no program from ending."""
    done = run_program(
        tmp_path,
        """
import json
from llm_gate import BlockingLLMGate
gate = BlockingLLMGate()
stream = gate.stream("Hello there you", user_id="ann", model="sandbox").__enter__()
print(json.dumps(next(iter(stream))))
""",
    )

    assert done.printed == ["This"]
    assert done.told == []
