"""Kept answers: what was given comes back the same, whole or as a stream, and only what is sound is written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_gate.domain.events import (
    Ended,
    Finished,
    Started,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
    UsageReported,
)
from llm_gate.domain.messages import TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.results import ChatResult, Choice, EmbeddingResult
from llm_gate.domain.usage import Usage
from llm_gate.engine.kept_answers import (
    MAX_KEPT_BYTES,
    Recording,
    read_chat,
    read_embedding,
    replayed,
    write_chat,
    write_embedding,
)
from support.figures import full
from support.targets import make_target

TARGET = make_target(provider="vendor", model="m")
USAGE = Usage(input_tokens=7, output_tokens=3)

texts = st.text("abcä☃ \n", min_size=1, max_size=600)
text_parts = st.builds(TextPart, text=texts)
thoughts = st.builds(ThinkingPart, text=texts, signature=st.sampled_from(["sig"]))
calls = st.builds(
    ToolCallPart,
    id=st.sampled_from(["call_1", "call_2"]),
    name=st.sampled_from(["look", "find"]),
    arguments=st.sampled_from(["{}", '{"a": 1}']),
    signature=st.none() | st.just("sig"),
)
# Text, then calls: two texts in a row would rightly come back as one.
said = st.tuples(
    st.lists(thoughts, max_size=2), st.lists(text_parts, max_size=1), st.lists(calls, max_size=3)
).map(lambda pieces: (*pieces[0], *pieces[1], *pieces[2]))
answers = st.lists(
    said.filter(lambda parts: any(not isinstance(part, ThinkingPart) for part in parts)),
    min_size=1,
    max_size=3,
)


def result_of(choices: list[tuple], reason: str = "stop") -> ChatResult:
    return ChatResult(
        choices=tuple(
            Choice(index=index, parts=parts, finish_reason=reason) for index, parts in enumerate(choices)
        ),
        usage=USAGE,
        model="m-1",
        created_s=5,
    )


def kept(result: ChatResult, *, in_form: bool = False) -> bytes | None:
    return write_chat(result, TARGET, USAGE, 45, in_form=in_form)


@settings(max_examples=full(100, 2_000), deadline=None)
@given(answers)
def test_an_answer_comes_back_whole_and_out_of_its_own_stream(choices):
    """Written and read it is the same, and so is what a stream of it is put together to."""
    result = result_of(choices)
    body = kept(result)
    assert body is not None
    found = read_chat(body)
    assert found is not None
    assert found.result == result
    assert (found.provider, found.wire_model, found.cost_nanos) == ("vendor", "m", 45)
    recording = Recording()
    batches = list(replayed(found))
    for batch in batches:
        recording.note(batch)
    assert recording.result(USAGE) == result
    assert batches[-1][-1] == Ended()
    assert sum(isinstance(event, Ended) for batch in batches for event in batch) == 1


def test_a_stream_in_pieces_is_put_together():
    """Deltas of several choices, thoughts and calls that come in turns end up where they belong."""
    recording = Recording()
    recording.note([Started(model="m-1", created_s=5)])
    recording.note([ThinkingDelta(text="hm"), ThinkingDelta(text="m"), ThinkingDelta(signature="sig")])
    recording.note([TextDelta(text="one ", index=1), TextDelta(text="a"), TextDelta(text="b")])
    recording.note([ToolCallDelta(call=0, id="c0", name="look"), ToolCallDelta(call=1, id="c1", name="find")])
    recording.note([ToolCallDelta(call=0, arguments='{"a":'), ToolCallDelta(call=1, arguments="{}")])
    recording.note([ToolCallDelta(call=0, arguments="1}"), TextDelta(text="more", index=1)])
    recording.note([Finished(reason="tool_calls"), Finished(reason="stop", index=1)])
    recording.note([UsageReported(usage=USAGE), Ended()])
    assert recording.result(USAGE) == ChatResult(
        choices=(
            Choice(
                parts=(
                    ThinkingPart(text="hmm", signature="sig"),
                    TextPart(text="ab"),
                    ToolCallPart(id="c0", name="look", arguments='{"a":1}'),
                    ToolCallPart(id="c1", name="find", arguments="{}"),
                ),
                finish_reason="tool_calls",
            ),
            Choice(index=1, parts=(TextPart(text="one more"),), finish_reason="stop"),
        ),
        usage=USAGE,
        model="m-1",
        created_s=5,
    )


@pytest.mark.parametrize(
    "events",
    [
        [],
        [TextDelta(text="a")],
        [TextDelta(text="a"), Finished(reason="stop"), TextDelta(text="b", index=1)],
        [TextDelta(text="x" * (MAX_KEPT_BYTES + 1)), Finished(reason="stop")],
        [*[TextDelta(text="☃" * 1_000)] * 400, Finished(reason="stop")],
    ],
)
def test_what_has_no_end_or_is_too_long_is_no_answer(events):
    """A choice that was not finished, and what is more than is kept."""
    recording = Recording()
    for event in events:
        recording.note([event])
    assert recording.result(USAGE) is None


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ((TextPart(text="Half"),), "length"),
        ((TextPart(text="x"),), "content_filter"),
        ((TextPart(text="I will not", refusal=True),), "stop"),
        ((TextPart(text=""),), "stop"),
        ((), "stop"),
        ((ThinkingPart(text="hm"),), "stop"),
        ((TextPart(text="x" * MAX_KEPT_BYTES),), "stop"),
    ],
)
def test_what_is_not_sound_is_not_written(parts, reason):
    """Cut, filtered, declined, empty or too long: one such choice is enough."""
    assert kept(result_of([parts], reason)) is None
    good = Choice(index=0, parts=(TextPart(text="fine"),), finish_reason="stop")
    bad = Choice(index=1, parts=parts, finish_reason=reason)
    assert kept(ChatResult(choices=(good, bad), usage=None)) is None


def test_a_call_where_a_form_was_asked_for_is_not_written():
    """Nobody has checked it against the schema."""
    result = result_of([(ToolCallPart(id="c", name="f", arguments="{}"),)], "tool_calls")
    assert kept(result) is not None
    assert kept(result, in_form=True) is None


def test_what_another_version_wrote_counts_as_not_kept():
    """Bytes that do not read are no answer, and no error."""
    body = kept(result_of([(TextPart(text="fine"),)]))
    assert body is not None
    for broken in (b"", body[:-1], body[1:], b"\x90", b"nonsense"):
        assert read_chat(broken) is None
        assert read_embedding(broken) is None


def test_vectors_come_back_to_the_last_bit():
    """Numbers are kept as they were read."""
    vectors = ((0.1, -1e-300, 3.0), (1 / 3, 2.0, -0.0))
    result = EmbeddingResult(vectors=vectors, usage=USAGE, model="e")
    body = write_embedding(result, TARGET, USAGE, 7)
    assert body is not None
    found = read_embedding(body)
    assert found is not None
    assert found.result == result
    assert repr(found.result.vectors) == repr(vectors)
    assert write_embedding(EmbeddingResult(vectors=((),), usage=None), TARGET, None, None) is None
    large = EmbeddingResult(vectors=((0.5,) * 131_073,), usage=None)
    assert write_embedding(large, TARGET, None, None) is None
