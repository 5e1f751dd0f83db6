"""Replays recorded vendor traffic to a real gateway: vendors, keys, calls, and what an answer must come to."""

import http.client
import json
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from llm_gate.catalog.loader import load_catalog
from llm_gate.domain.catalog import Catalog
from support.gateway import NATIVE_HEADERS
from support.recorded import Interaction
from support.upstream import Answer, FakeUpstream, Seen

CHAT, NATIVE_CHAT, NATIVE_STREAM = "/v1/chat/completions", "/llm-gate/v1/chat", "/llm-gate/v1/chat/stream"
EMBEDDINGS, NATIVE_EMBEDDINGS = "/v1/embeddings", "/llm-gate/v1/embeddings"
CALLER_TOKEN = "caller-token-0123456789"
LEAKY = frozenset({"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie"})


@dataclass(frozen=True)
class Vendor:
    """How a vendor is reached: the part of its address behind the host, and the header of its credential."""

    key_name: str
    key: str
    base: str
    header: str = "authorization"

    @property
    def credential(self) -> str:
        """The value of the credential header."""
        return f"Bearer {self.key}" if self.header == "authorization" else self.key


VENDORS: Mapping[str, Vendor] = {
    "openai": Vendor("OPENAI_API_KEY", "sk-proj-OaFakeKey0123456789AbCdEfGhTAILoa", "/oa/v1"),
    "azure_openai": Vendor("AZURE_OPENAI_API_KEY", "9f8e7d6c5b4a39281706f5e4d3TAILaz", "/az", "api-key"),
    "anthropic": Vendor("ANTHROPIC_API_KEY", "sk-ant-api03-AnFakeKey0123456789-TAILan", "/an", "x-api-key"),
    "gemini": Vendor(
        "GEMINI_API_KEY", "AIzaSyGeFakeKey0123456789abcdefgTAILge", "/ge/v1beta", "x-goog-api-key"
    ),
    "mistral": Vendor("MISTRAL_API_KEY", "MiFakeKey0123456789abcdefghTAILm", "/mi/v1"),
    "groq": Vendor("GROQ_API_KEY", "gsk_GrFakeKey0123456789abcdefghTAILgr", "/gr/openai/v1"),
    "openrouter": Vendor("OPENROUTER_API_KEY", "sk-or-v1-OrFakeKey0123456789abcdTAILor", "/or/api/v1"),
    "huggingface": Vendor("HF_TOKEN", "hf_HfFakeKey0123456789abcdefghTAILhf", "/hf/v1"),
    "deepseek": Vendor("DEEPSEEK_API_KEY", "sk-DsFakeKey0123456789abcdefghTAILds", "/ds/v1"),
}
OWN_FORMATS: Mapping[str, Vendor] = {
    "cohere": Vendor("COHERE_API_KEY", "CoFakeKey0123456789abcdefghTAILco", "/co"),
    "ollama": Vendor("OLLAMA_API_KEY", "OlFakeKey0123456789abcdefghTAILol", "/ol"),
}
OPENAI_SPEAKERS = ("openai", "azure_openai", "mistral", "groq", "openrouter", "huggingface")
FINISH_IS_END = frozenset({"huggingface"})


def environment(upstream: FakeUpstream) -> dict[str, str]:
    """Return the variables that lead every vendor to the fake one."""
    vendors = {**VENDORS, **OWN_FORMATS}
    found = {vendor.key_name: vendor.key for vendor in vendors.values()}
    for name, vendor in vendors.items():
        found[f"LLM_GATE_{name.upper()}_BASE_URL"] = upstream.url + vendor.base
    return found


# ---- calling the gateway


@dataclass(frozen=True)
class Got:
    """A complete answer of the gateway."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each event of a stream, parsed; "[DONE]" as it stands."""
        return data_of(self.body)


class Caller:
    """Calls the gateway over one connection, and checks of every answer that no credential is in it."""

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)

    def post(self, path: str, body: Any, headers: Mapping[str, str] = {}) -> Got:
        """Send a JSON body; native routes get their required headers."""
        sent = {
            "content-type": "application/json",
            "authorization": f"Bearer {CALLER_TOKEN}",
            **(NATIVE_HEADERS if path.startswith("/llm-gate") else {"X-User-Id": "someone"}),
            **headers,
        }
        self._connection.request("POST", path, json.dumps(body).encode(), sent)
        reply = self._connection.getresponse()
        fields = {name.lower(): value for name, value in reply.getheaders()}
        got = Got(status=reply.status, headers=fields, body=reply.read())
        assert_no_credential(f"{got.headers} {got.body.decode()}")
        return got

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def assert_no_credential(text: str) -> None:
    """Check that no vendor's key is in a text, neither whole nor by its ends."""
    for vendor in (*VENDORS.values(), *OWN_FORMATS.values()):
        for piece in (vendor.key, vendor.key[:12], vendor.key[-6:]):
            assert piece not in text, f"{piece} shows: {text[:400]}"


def native_chat(provider: str, model: str, text: str = "Hello") -> dict[str, Any]:
    """Return the body of a plain native question."""
    return {
        "prompt": {"messages": [{"role": "user", "content": text}]},
        "provider": {"name": provider, "model": {"name": model}},
    }


def plain_chat(provider: str, model: str, **more: Any) -> dict[str, Any]:
    """Return the body of a plain question on the OpenAI surface."""
    return {"model": f"{provider}/{model}", "messages": [{"role": "user", "content": "Hello"}], **more}


# ---- playing a recording


def replay(interaction: Interaction) -> Answer:
    """Answer as recorded; a stream goes out in random pieces."""
    headers = {name: value for name, value in interaction.headers.items() if "\n" not in value}
    if is_stream(interaction):
        return Answer(status=interaction.status, headers=headers, pieces=cut(interaction.body))
    return Answer(status=interaction.status, headers=headers, body=interaction.body)


def is_stream(interaction: Interaction) -> bool:
    """Tell whether the recorded answer is a stream of events, or Gemini's array in place of one."""
    return interaction.json is None and interaction.body[:1] in {b"d", b"e", b":", b"["}


def cut(body: bytes, pieces: int = 12) -> list[bytes]:
    """Cut bytes at random places, the same ones each time."""
    chance = random.Random(len(body))  # noqa: S311 - cuts, not secrets
    cuts = [0, *sorted(chance.randrange(len(body)) for _ in range(pieces)), len(body)]
    return [body[a:b] for a, b in pairwise(cuts)]


def data_of(body: bytes) -> list[Any]:
    """Return the data of each event, read in the simplest way."""
    text = body.decode()
    if text.startswith("["):
        return list(json.loads(text))
    data = [line[5:].strip() for line in re.split(r"\r\n|\r|\n", text) if line.startswith("data:")]
    return [each if each == "[DONE]" else json.loads(each) for each in data]


@cache
def _catalog() -> Catalog:
    return load_catalog()


def wire_model(provider: str, name: str) -> str:
    """Return the name under which a model is asked for at the vendor today: retired ones have a successor."""
    models = _catalog().providers[provider].models
    today = datetime.now(UTC).date()
    model = models.get(name)
    while model is not None and model.is_retired(today) and model.replacement is not None:
        model = models[model.replacement]
    return name if model is None else model.deployment or model.name


def assert_arrived(seen: Seen, provider: str, path: str) -> None:
    """Check method, path and headers of what the vendor got: its own credential and nobody else's."""
    vendor = VENDORS[provider]
    assert (seen.method, seen.path) == ("POST", vendor.base + path)
    assert seen.headers["content-type"] == "application/json"
    assert {name: seen.headers[name] for name in LEAKY & seen.headers.keys()} == {
        vendor.header: vendor.credential
    }
    text = f"{seen.path} {seen.headers} {seen.body!r}"
    assert CALLER_TOKEN not in text
    assert text.count(vendor.key) == 1
    assert not {"x-user-id", "client_id", "x-correlation-id"} & seen.headers.keys()


# ---- what an answer comes to


@dataclass(frozen=True)
class Told:
    """What an answer says: for each choice its text, its calls (name, arguments) and why it ended; the counts."""

    choices: tuple[tuple[str, tuple[tuple[str, Any], ...], str | None], ...]
    usage: tuple[int, int] | None


def _arguments(text: str | None) -> Any:
    try:
        return json.loads(text or "{}")
    except ValueError:
        return text


def _openai_text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if part["type"] == "text")
    return content or ""


def openai_told(document: Any) -> Told:
    """Read a complete answer in the OpenAI format."""
    choices = []
    for choice in document["choices"]:
        message = choice.get("message") or {}
        calls = [call["function"] for call in message.get("tool_calls") or () if "function" in call]
        named = tuple((call["name"], _arguments(call["arguments"])) for call in calls)
        choices.append((_openai_text(message.get("content")), named, choice.get("finish_reason")))
    return Told(tuple(choices), _openai_usage([document]))


def _openai_usage(documents: Sequence[Any]) -> tuple[int, int] | None:
    found = [each.get("usage") or (each.get("x_groq") or {}).get("usage") for each in documents]
    last = next((usage for usage in reversed(found) if usage), None)
    if last is None:
        return None
    prompt, output = last["prompt_tokens"], last["completion_tokens"]
    reasoning = (last.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
    aside = reasoning and last.get("total_tokens") == prompt + output + reasoning
    return prompt, output + reasoning if aside else output


def openai_stream_told(chunks: Iterable[Any]) -> Told:
    """Read the chunks of a streamed answer in the OpenAI format."""
    texts: dict[int, str] = {}
    calls: dict[int, dict[Any, list[str]]] = {}
    ends: dict[int, str | None] = {}
    documents = [chunk for chunk in chunks if chunk != "[DONE]"]
    for choice in (choice for chunk in documents for choice in chunk.get("choices") or ()):
        index, delta = choice.get("index", 0), choice.get("delta") or {}
        texts[index] = texts.get(index, "") + _openai_text(delta.get("content"))
        ends[index] = choice.get("finish_reason") or ends.get(index)
        for call in delta.get("tool_calls") or ():
            place = call.get("index", call.get("id"))
            known = calls.setdefault(index, {}).setdefault(place, ["", ""])
            known[0] = known[0] or call["function"].get("name") or ""
            known[1] += call["function"].get("arguments") or ""
    return Told(
        tuple(
            (
                texts[index],
                tuple((name, _arguments(text)) for name, text in calls.get(index, {}).values()),
                ends[index],
            )
            for index in sorted(texts)
        ),
        _openai_usage(documents),
    )


_ANTHROPIC_ENDS = {"max_tokens": "length", "tool_use": "tool_calls", "refusal": "content_filter"}


def anthropic_told(document: Any) -> Told:
    """Read a complete answer in the Messages format."""
    content = document["content"]
    text = "".join(block["text"] for block in content if block["type"] == "text")
    calls = tuple((block["name"], block["input"]) for block in content if block["type"] == "tool_use")
    counts = document["usage"]
    cached = (counts.get(f"cache_{kind}_input_tokens") or 0 for kind in ("read", "creation"))
    usage = (counts["input_tokens"] + sum(cached), counts["output_tokens"])
    return Told(((text, calls, _ANTHROPIC_ENDS.get(document["stop_reason"], "stop")),), usage)


def anthropic_stream_told(events: Iterable[Any]) -> Told:
    """Read the events of a streamed answer in the Messages format."""
    blocks: dict[int, dict[str, Any]] = {}
    document: dict[str, Any] = {"usage": {}, "stop_reason": None}
    for event in events:
        match event["type"]:
            case "message_start":
                document["usage"] |= event["message"]["usage"]
            case "content_block_start":
                blocks[event["index"]] = {**event["content_block"], "json": ""}
            case "content_block_delta":
                block, delta = blocks[event["index"]], event["delta"]
                if delta["type"] == "text_delta":
                    block["text"] += delta["text"]
                elif delta["type"] == "input_json_delta":
                    block["json"] += delta["partial_json"]
            case "message_delta":
                document["stop_reason"] = event["delta"]["stop_reason"]
                known = {name: value for name, value in event["usage"].items() if value is not None}
                document["usage"] |= known
    for block in blocks.values():
        if block["json"]:
            block["input"] = _arguments(block["json"])
    return anthropic_told({**document, "content": list(blocks.values())})


def gemini_told(chunks: Sequence[Any]) -> Told:
    """Read an answer of Gemini, or the pieces of one."""
    candidates = [chunk["candidates"][0] for chunk in chunks if chunk.get("candidates")]
    parts = [part for each in candidates for part in (each.get("content") or {}).get("parts", [])]
    calls = tuple(
        (part["functionCall"]["name"], part["functionCall"].get("args", {}))
        for part in parts
        if "functionCall" in part
    )
    word = next((each["finishReason"] for each in reversed(candidates) if "finishReason" in each), "SAFETY")
    reason = {"STOP": "stop", 1: "stop", "MAX_TOKENS": "length"}.get(word, "content_filter")
    counts = chunks[-1].get("usageMetadata", {})
    usage = None
    if "promptTokenCount" in counts:
        asked = counts["promptTokenCount"] + counts.get("toolUsePromptTokenCount", 0)
        usage = (asked, counts.get("candidatesTokenCount", 0) + counts.get("thoughtsTokenCount", 0))
    text = "".join(part.get("text", "") for part in parts if not part.get("thought"))
    return Told(((text, calls, "tool_calls" if calls and reason == "stop" else reason),), usage)


_COHERE_ENDS = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}


def cohere_told(document: Any) -> Told:
    """Read a complete answer of Cohere; the counts are the billed ones."""
    message, billed = document["message"], document["usage"]["billed_units"]
    text = "".join(part.get("text") or "" for part in message.get("content") or ())
    functions = [call["function"] for call in message.get("tool_calls") or ()]
    calls = tuple((each["name"], _arguments(each["arguments"])) for each in functions)
    usage = int(billed["input_tokens"]), int(billed["output_tokens"])
    return Told(((text, calls, _COHERE_ENDS[document["finish_reason"]]),), usage)


def cohere_stream_told(events: Iterable[Any]) -> Told:
    """Read the events of a streamed answer of Cohere."""
    text, calls = "", []
    for event in (event for event in events if event != "[DONE]"):
        delta = event.get("delta") or {}
        said = delta.get("message") or {}
        match event["type"]:
            case "content-start" | "content-delta":
                text += said["content"].get("text") or ""
            case "tool-call-start":
                calls.append(dict(said["tool_calls"]["function"]))
            case "tool-call-delta":
                calls[event["index"]]["arguments"] += said["tool_calls"]["function"]["arguments"]
            case "message-end":
                end = delta
    message = {"content": [{"text": text}], "tool_calls": [{"function": call} for call in calls]}
    return cohere_told({**end, "message": message})


def ollama_told(lines: Sequence[Any]) -> Told:
    """Read an answer of Ollama, or the lines of one."""
    messages = [line["message"] for line in lines]
    functions = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
    calls = tuple((each["name"], each["arguments"]) for each in functions)
    last = lines[-1]
    end = "tool_calls" if calls and last["done_reason"] == "stop" else last["done_reason"]
    text = "".join(message["content"] or "" for message in messages)
    return Told(((text, calls, end),), (last["prompt_eval_count"], last["eval_count"]))


def native_told(document: Any) -> Told:
    """Read a complete native answer, which holds one choice here."""
    messages = document["messages"]
    text = "".join(message["content"] for message in messages if message["role"] == "assistant")
    return Told(((text, _native_calls(messages), document.get("finishReason")),), _native_usage(document))


def native_stream_told(events: Sequence[Any]) -> Told:
    """Read the events of a native stream, which holds one choice here."""
    messages = [event["message"] for event in events[:-1]]
    text = "".join(message["content"] for message in messages if message["role"] == "assistant")
    return Told(((text, _native_calls(messages), events[-1].get("finishReason")),), _native_usage(events[-1]))


def _native_calls(messages: Iterable[Any]) -> tuple[tuple[str, Any], ...]:
    tools = [message["tool"] for message in messages if message["role"] == "tool"]
    return tuple((tool["name"], _arguments(tool["arguments"])) for tool in tools)


def _native_usage(document: Any) -> tuple[int, int] | None:
    usage = document.get("usage")
    if usage is None:
        return None
    assert sorted(usage) == ["completionTokens", "promptTokens", "totalTokens"]
    return usage["promptTokens"], usage["completionTokens"]
