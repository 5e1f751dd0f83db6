"""Recorded tool calls, taken by official clients through the gateway; their results, as the vendor gets them."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest

from support.recorded import REASON, Interaction, recorded_root, recordings
from support.replay import CALLER_TOKEN, cut, data_of, is_stream, replay
from support.small_answers import UNARY, answer, streamed
from support.upstream import Answer

QUESTION = {"role": "user", "content": "What is it like?"}
RESULTS = ("sunny", "4:20 PM")
SECOND = {name: Answer.json(document) for name, document in UNARY.items()} | {
    name: answer(name) for name in ("cohere", "ollama")
}
WORDS = dict.fromkeys(UNARY, "Grüezi 👋") | dict.fromkeys(("cohere", "ollama"), "Ciao")
CASES = [
    ("openai", "chat-tools", "parallel-calls", "whole"),
    ("openai", "chat-stream", "tool-call-usage", "streamed"),
    ("anthropic", "messages", "tool-use", "whole"),
    ("anthropic", "messages-stream", "several-tools", "streamed"),
    ("anthropic", "messages-stream", "thinking-tool-chain", "streamed"),
    ("gemini", "tools", "parallel-multi-turn", "whole"),
    ("gemini", "stream", "json-array-tools-signatures", "streamed"),
    ("cohere", "chat", "tool-history-two-turns", "whole"),
    ("cohere", "chat-stream", "tool-calls", "streamed"),
    ("ollama", "chat", "thinking-tool", "whole"),
    ("ollama", "chat", "thinking-tool", "streamed"),
]


@dataclass(frozen=True)
class Call:
    """A tool call; the id is None where the vendor gave none."""

    id: str | None
    name: str
    arguments: Any
    signature: str | None = None


@dataclass(frozen=True)
class Turn:
    """What a vendor said in its first turn: calls, thoughts with their signature, and text."""

    calls: tuple[Call, ...]
    thoughts: str = ""
    signature: str | None = None
    text: str = ""


# ---- the recorded first turn, read from the wire


def parsed(text: str | dict[str, Any]) -> Any:
    return json.loads(text or "{}") if isinstance(text, str) else text


def documents_of(provider: str, interaction: Interaction) -> list[Any]:
    return [interaction.json] if interaction.json is not None else data_of(interaction.body)


def openai_turn(documents: list[Any]) -> Turn:
    calls: dict[int, Call] = {}
    for choice in (choice for each in documents if each != "[DONE]" for choice in each["choices"]):
        said = choice.get("message") or choice.get("delta") or {}
        for number, call in enumerate(said.get("tool_calls") or ()):
            place, function = call.get("index", number), call["function"]
            known = calls.get(place, Call(call.get("id"), function.get("name", ""), ""))
            calls[place] = Call(known.id, known.name, known.arguments + (function.get("arguments") or ""))
    return Turn(tuple(Call(each.id, each.name, parsed(each.arguments)) for each in calls.values()))


def anthropic_turn(documents: list[Any]) -> Turn:
    blocks = list(documents[0].get("content") or ())
    for event in documents:
        if event["type"] == "content_block_start":
            blocks.append({**event["content_block"], "partial_json": ""})
        elif event["type"] == "content_block_delta":
            for name, value in event["delta"].items():
                if name != "type":
                    blocks[-1][name] = blocks[-1].get(name, "") + value
    calls = tuple(
        Call(block["id"], block["name"], parsed(block.get("partial_json") or block["input"]))
        for block in blocks
        if block["type"] == "tool_use"
    )
    text = "".join(block["text"] for block in blocks if block["type"] == "text")
    thought = next((block for block in blocks if block["type"] == "thinking"), {})
    return Turn(calls, thought.get("thinking", ""), thought.get("signature"), text)


def gemini_turn(documents: list[Any]) -> Turn:
    parts = [part for each in documents for part in each["candidates"][0]["content"]["parts"]]
    calls = [(part["functionCall"], part.get("thoughtSignature")) for part in parts if "functionCall" in part]
    return Turn(tuple(Call(None, call["name"], call["args"], signature) for call, signature in calls))


def cohere_turn(documents: list[Any]) -> Turn:
    if "message" in documents[0]:
        message = documents[0]["message"]
        said = [(each["id"], each["function"]) for each in message["tool_calls"]]
        plan = message["tool_plan"]
    else:
        deltas = [
            (each, (each.get("delta") or {}).get("message") or {}) for each in documents if each != "[DONE]"
        ]
        plan = "".join(message.get("tool_plan") or "" for _, message in deltas)
        said = []
        for event, message in deltas:
            if event["type"] == "tool-call-start":
                said.append((message["tool_calls"]["id"], dict(message["tool_calls"]["function"])))
            elif event["type"] == "tool-call-delta":
                said[event["index"]][1]["arguments"] += message["tool_calls"]["function"]["arguments"]
    return Turn(tuple(Call(id_, each["name"], parsed(each["arguments"])) for id_, each in said), plan)


def ollama_turn(documents: list[Any]) -> Turn:
    message = documents[0]["message"]
    calls = [(each.get("id"), each["function"]) for each in message["tool_calls"]]
    told = tuple(Call(id_, function["name"], function["arguments"]) for id_, function in calls)
    return Turn(told, message["thinking"])


TURNS: dict[str, Callable[[list[Any]], Turn]] = {
    "openai": openai_turn,
    "anthropic": anthropic_turn,
    "gemini": gemini_turn,
    "cohere": cohere_turn,
    "ollama": ollama_turn,
}


@dataclass(frozen=True)
class Case:
    """A recorded first turn of a vendor."""

    provider: str
    interaction: Interaction
    is_streamed: bool

    @property
    def turn(self) -> Turn:
        """What the vendor said."""
        return TURNS[self.provider](documents_of(self.provider, self.interaction))

    @property
    def model(self) -> str:
        """The model to ask for."""
        url, body = self.interaction.request["url"], self.interaction.request["body"]
        name = body["model"] if "model" in body else url.rpartition("/")[2].partition(":")[0]
        return f"{self.provider}/{name}"

    @property
    def answer(self) -> Answer:
        """The answer as recorded; Ollama's whole one is a stream of one line."""
        if self.provider == "ollama" and self.is_streamed:
            return streamed("ollama", *cut(self.interaction.body + b"\n"))
        return replay(self.interaction)

    @property
    def names(self) -> list[str]:
        """The names of the tools."""
        return [call.name for call in self.turn.calls]


def cases() -> list[Any]:
    found = []
    for provider, folder, name, how in CASES:
        for recording in recordings(provider, folder):
            if recording.id.endswith(f"/{name}.json"):
                case = Case(provider, recording.interactions[0], how == "streamed")
                assert case.is_streamed == is_stream(case.interaction) or provider == "ollama"
                found.append(pytest.param(case, id=f"{provider}-{name}-{how}"))
    return found


pytestmark = [
    pytest.mark.skipif(recorded_root() is None, reason=REASON),
    pytest.mark.parametrize("case", cases()),
]


# ---- the official clients


@pytest.fixture(scope="module")
def messages_client(gateway) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=CALLER_TOKEN, max_retries=0) as client:
        yield client


SCHEMA: dict[str, Any] = {"type": "object", "properties": {}}


def results_for(case: Case, ids: list[str]) -> list[tuple[str, str]]:
    """Pair ids with results, after checking that what the vendor named keeps its name."""
    known = [call.id for call in case.turn.calls]
    assert len(ids) == len(set(ids)) == len(known) <= len(RESULTS)
    assert all(id_ and (was is None or id_ == was) for id_, was in zip(ids, known, strict=True))
    return list(zip(ids, RESULTS, strict=False))


def through_chat(case, upstream, client: openai.OpenAI) -> tuple[list[str], Any]:
    """Take the calls and answer them with chat completions; return the ids and what the second answer says."""
    tools: Any = [
        {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in case.names
    ]
    asked: Any = {"model": case.model, "tools": tools}
    upstream.will(case.answer)
    if case.is_streamed:
        with client.chat.completions.stream(**asked, messages=[QUESTION]) as stream:
            (choice,) = stream.get_final_completion().choices
    else:
        (choice,) = client.chat.completions.create(**asked, messages=[QUESTION]).choices
    assert choice.finish_reason == "tool_calls"
    made = choice.message.tool_calls
    assert [(each.function.name, parsed(each.function.arguments)) for each in made] == [
        (call.name, call.arguments) for call in case.turn.calls
    ]
    ids = [each.id for each in made]
    told = [{"role": "tool", "tool_call_id": id_, "content": text} for id_, text in results_for(case, ids)]
    upstream.will(SECOND[case.provider])
    raw = client.chat.completions.with_raw_response.create(
        **asked, messages=[QUESTION, choice.message, *told]
    )
    is_lost = case.provider == "anthropic" and case.turn.thoughts
    assert raw.headers.get("x-llm-gate-dropped") == ("messages[].reasoning_content" if is_lost else None)
    return ids, raw.parse().choices[0].message.content


def through_responses(case, upstream, client: openai.OpenAI) -> tuple[list[str], Any]:
    """Do the same with Responses."""
    tools: Any = [
        {"type": "function", "name": name, "parameters": SCHEMA, "strict": False} for name in case.names
    ]
    asked: Any = {"model": case.model, "tools": tools}
    upstream.will(case.answer)
    if case.is_streamed:
        with client.responses.stream(**asked, input=[QUESTION]) as stream:
            first = stream.get_final_response()
    else:
        first = client.responses.create(**asked, input=[QUESTION])
    made = [item for item in first.output if item.type == "function_call"]
    assert [(each.name, parsed(each.arguments)) for each in made] == [
        (call.name, call.arguments) for call in case.turn.calls
    ]
    ids = [each.call_id for each in made]
    told = [
        {"type": "function_call_output", "call_id": id_, "output": text}
        for id_, text in results_for(case, ids)
    ]
    upstream.will(SECOND[case.provider])
    second = client.responses.create(**asked, input=[QUESTION, *first.output, *told])
    return ids, second.output_text


def through_messages(case, upstream, client: anthropic.Anthropic) -> tuple[list[str], Any]:
    """Do the same with Anthropic's client."""
    tools: Any = [{"name": name, "input_schema": SCHEMA} for name in case.names]
    asked: Any = {"model": case.model, "max_tokens": 1000, "tools": tools}
    upstream.will(case.answer)
    if case.is_streamed:
        with client.messages.stream(**asked, messages=[QUESTION]) as stream:
            first = stream.get_final_message()
    else:
        first = client.messages.create(**asked, messages=[QUESTION])
    assert first.stop_reason == "tool_use"
    made = [block for block in first.content if block.type == "tool_use"]
    assert [(each.name, each.input) for each in made] == [
        (call.name, call.arguments) for call in case.turn.calls
    ]
    ids = [each.id for each in made]
    told = [
        {"type": "tool_result", "tool_use_id": id_, "content": text} for id_, text in results_for(case, ids)
    ]
    turns: Any = [
        QUESTION,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": told},
    ]
    upstream.will(SECOND[case.provider])
    second = client.messages.create(**asked, messages=turns)
    return ids, "".join(block.text for block in second.content if block.type == "text")


# ---- what the vendor must get, in its own format


def without_empty(record: dict[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing, and what the client puts into a call that it put together from a stream."""
    return {
        name: value
        for name, value in record.items()
        if value not in (None, [], "") and name not in {"index", "parsed_arguments"}
    }


def arrived_at_openai(body: Any) -> list[Any]:
    question, assistant, *results = body["messages"]
    calls = [
        {
            **without_empty(call),
            "function": {
                **without_empty(call["function"]),
                "arguments": parsed(call["function"]["arguments"]),
            },
        }
        for call in assistant["tool_calls"]
    ]
    return [question, {"role": assistant["role"], "tool_calls": calls}, *results]


def due_at_openai(turn: Turn, ids: list[str], *, signed: bool) -> list[Any]:
    calls = [
        {"id": id_, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for id_, call in zip(ids, turn.calls, strict=True)
    ]
    results = [
        {"role": "tool", "tool_call_id": id_, "content": text}
        for id_, text in zip(ids, RESULTS, strict=False)
    ]
    return [QUESTION, {"role": "assistant", "tool_calls": calls}, *results]


def arrived_at_anthropic(body: Any) -> list[Any]:
    turns = []
    for turn in body["messages"]:
        content = turn["content"]
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
        turns.append({"role": turn["role"], "content": [as_block(block) for block in blocks]})
    return turns


def as_block(block: dict[str, Any]) -> dict[str, Any]:
    """Write a block in its short form."""
    block = {name: value for name, value in block.items() if value is not None and name != "caller"}
    if block["type"] == "tool_result" and not isinstance(block["content"], str):
        (part,) = block["content"]
        return {**block, "content": part["text"]}
    return block


def due_at_anthropic(turn: Turn, ids: list[str], *, signed: bool) -> list[Any]:
    said: list[Any] = []
    if turn.signature and signed:
        said.append({"type": "thinking", "thinking": turn.thoughts, "signature": turn.signature})
    if turn.text:
        said.append({"type": "text", "text": turn.text})
    said += [
        {"type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments} for call in turn.calls
    ]
    results = [
        {"type": "tool_result", "tool_use_id": id_, "content": text}
        for id_, text in zip(ids, RESULTS, strict=False)
    ]
    return [
        {"role": "user", "content": [{"type": "text", "text": QUESTION["content"]}]},
        {"role": "assistant", "content": said},
        {"role": "user", "content": results},
    ]


def arrived_at_gemini(body: Any) -> list[Any]:
    return body["contents"]


def due_at_gemini(turn: Turn, ids: list[str], *, signed: bool) -> list[Any]:
    calls, results = [], []
    for id_, call, text in zip(ids, turn.calls, RESULTS, strict=False):
        part: dict[str, Any] = {"functionCall": {"name": call.name, "args": call.arguments, "id": id_}}
        calls.append(part | ({"thoughtSignature": call.signature} if call.signature else {}))
        response = {"name": call.name, "response": {"result": text}, "id": id_}
        results.append({"functionResponse": response})
    return [
        {"role": "user", "parts": [{"text": QUESTION["content"]}]},
        {"role": "model", "parts": calls},
        {"role": "user", "parts": results},
    ]


def arrived_at_cohere(body: Any) -> list[Any]:
    question, assistant, *results = body["messages"]
    calls = [
        {**call, "function": {**call["function"], "arguments": parsed(call["function"]["arguments"])}}
        for call in assistant["tool_calls"]
    ]
    return [question, {**assistant, "tool_calls": calls}, *results]


def due_at_cohere(turn: Turn, ids: list[str], *, signed: bool) -> list[Any]:
    question, assistant, *results = due_at_openai(turn, ids, signed=signed)
    return [question, {**assistant, "tool_plan": turn.thoughts}, *results]


def arrived_at_ollama(body: Any) -> list[Any]:
    return body["messages"]


def due_at_ollama(turn: Turn, ids: list[str], *, signed: bool) -> list[Any]:
    calls = [
        {"id": id_, "function": {"name": call.name, "arguments": call.arguments}}
        for id_, call in zip(ids, turn.calls, strict=True)
    ]
    results = [
        {"role": "tool", "content": text, "tool_name": call.name, "tool_call_id": id_}
        for id_, call, text in zip(ids, turn.calls, RESULTS, strict=False)
    ]
    said = {"role": "assistant", "content": "", "thinking": turn.thoughts, "tool_calls": calls}
    return [QUESTION, said, *results]


ARRIVED = {
    "openai": (arrived_at_openai, due_at_openai),
    "anthropic": (arrived_at_anthropic, due_at_anthropic),
    "gemini": (arrived_at_gemini, due_at_gemini),
    "cohere": (arrived_at_cohere, due_at_cohere),
    "ollama": (arrived_at_ollama, due_at_ollama),
}


def assert_second_turn(case: Case, upstream, ids: list[str], *, signed: bool) -> None:
    """Check the whole conversation that the vendor got."""
    arrived, due = ARRIVED[case.provider]
    assert arrived(upstream.only.json) == due(case.turn, ids, signed=signed)


def test_chat_completions(case, upstream, client):
    """OpenAI's client, with its message handed back as it is: ids, arguments and a call's signature return.

    A signature of Anthropic's thinking has no place in this format: its thinking is left out, and a header says so.
    """
    ids, words = through_chat(case, upstream, client)
    assert words == WORDS[case.provider]
    assert_second_turn(case, upstream, ids, signed=False)


def test_responses(case, upstream, client):
    """OpenAI's client with Responses, its items handed back as they are: signatures of thinking return as well."""
    ids, words = through_responses(case, upstream, client)
    assert words == WORDS[case.provider]
    assert_second_turn(case, upstream, ids, signed=True)


def test_messages(case, upstream, messages_client):
    """Anthropic's client, with its blocks handed back as they are: ids, arguments and signatures return."""
    ids, words = through_messages(case, upstream, messages_client)
    assert words == WORDS[case.provider]
    assert_second_turn(case, upstream, ids, signed=True)
