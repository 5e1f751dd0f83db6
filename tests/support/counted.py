"""Recorded requests with the input tokens that the vendor counted, as the gateway reads them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llm_gate.dialects.anthropic_inbound import decode_messages_request
from llm_gate.dialects.openai_chat import decode_chat_request
from llm_gate.dialects.openai_responses import decode_responses_request
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.requests import ChatRequest
from support.recorded import Interaction, recorded_root, recordings

_SKIPPED = {"embeddings", "embed", "images", "image", "tts", "image-output", "audio-input", "video-input"}
"""Operations that are no chat, or whose input is mostly no text."""

_ADDED = {"documents", "plugins", "prompt", "template", "conversation", "previous_response_id"}
_SEARCHES = re.compile(
    r"web_search|google_search|googleSearch|codeExecution|code_execution|compound-|search-preview"
)
"""What lets the vendor put more in than the caller sent: nobody can count that before."""

_COUNTS = re.compile(
    r'"(prompt_tokens|input_tokens|promptTokenCount|prompt_eval_count|totalTokens'
    r'|cache_read_input_tokens|cache_creation_input_tokens)": ?(\d+)'
)
# One vendor tells what it bills beside what it read, of which much is its own.
_BILLED = re.compile(r'"billed_units": ?\{[^}]*"input_tokens": ?([\d.]+)')
_WIRED = {"anthropic"}


@dataclass(frozen=True)
class Counted:
    """One request: whose, which recording, what it was asked for, and what the vendor counted."""

    vendor: str
    id: str
    model: str
    request: ChatRequest
    tokens: int


def counted() -> Iterator[Counted]:
    """Yield every chat of the recordings whose input is text and tools, with what the vendor counted."""
    root = recorded_root()
    if root is None:
        return
    for vendor in sorted(path.name for path in root.iterdir() if path.is_dir()):
        folders = sorted(path.name for path in (root / vendor).iterdir() if path.is_dir())
        for recording in recordings(vendor, *(name for name in folders if name not in _SKIPPED)):
            for interaction in recording.interactions:
                found = _read(vendor, recording.id, interaction)
                if found is not None:
                    yield found


def _read(vendor: str, name: str, interaction: Interaction) -> Counted | None:
    sent = interaction.request
    tokens = _tokens(vendor, interaction.body.decode(errors="replace"))
    if sent is None or tokens is None or not isinstance(sent.get("body"), dict):
        return None
    body = sent["body"]
    text = json.dumps(body)
    if re.search(
        r'"(inlineData|inline_data|image_url|input_image|fileData|file_data|input_audio|source)"', text
    ):
        return None
    model = str(body.get("model") or re.sub(r".*/models/([^:]+):.*", r"\1", sent["url"]))
    try:
        request = _decode(vendor, body, model)
    except InvalidRequest:
        return None
    if request is None or request.binding or request.extra.keys() & _ADDED or _SEARCHES.search(text + model):
        return None
    return Counted(vendor, name, model.removeprefix("models/"), request, tokens)


def _tokens(vendor: str, text: str) -> int | None:
    billed = _BILLED.findall(text)
    if billed:
        return int(float(billed[-1]))
    found: dict[str, int] = {}
    for name, number in _COUNTS.findall(text):
        # Streams count up; the last word holds.
        found[name] = max(int(number), found.get(name, 0))
    for name in ("promptTokenCount", "prompt_eval_count", "prompt_tokens", "input_tokens", "totalTokens"):
        if found.get(name):
            cached = ("cache_read_input_tokens", "cache_creation_input_tokens")
            return found[name] + (sum(found.get(each, 0) for each in cached) if vendor in _WIRED else 0)
    return None


def _decode(vendor: str, body: dict[str, Any], model: str) -> ChatRequest | None:
    if "contents" in body or "generateContentRequest" in body:
        return decode_chat_request(_encoded(_from_gemini(body, model)))
    if vendor in _WIRED:
        return decode_messages_request(_encoded({"max_tokens": 1, **body}))
    if "input" in body:
        return decode_responses_request(_encoded(body)).chat
    if "messages" in body:
        return decode_chat_request(_encoded({**body, "model": model}))
    return None


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode()


def _from_gemini(body: dict[str, Any], model: str) -> dict[str, Any]:
    """Return a body of this vendor's in the form that most others have, as far as its text and tools go."""
    body = body.get("generateContentRequest", body)
    messages: list[dict[str, Any]] = []
    system = body.get("systemInstruction") or body.get("system_instruction")
    if system:
        messages.append({"role": "system", "content": _text(system)})
    for turn in body["contents"]:
        if any("functionCall" in part for part in turn["parts"]):
            calls = [part["functionCall"] for part in turn["parts"] if "functionCall" in part]
            written = [
                {
                    "id": "c",
                    "type": "function",
                    "function": {"name": call["name"], "arguments": json.dumps(call.get("args", {}))},
                }
                for call in calls
            ]
            messages.append({"role": "assistant", "content": _text(turn) or None, "tool_calls": written})
        elif any("functionResponse" in part for part in turn["parts"]):
            messages += [
                {
                    "role": "tool",
                    "tool_call_id": "c",
                    "content": json.dumps(part["functionResponse"]["response"]),
                }
                for part in turn["parts"]
                if "functionResponse" in part
            ]
        else:
            role = "assistant" if turn.get("role") == "model" else "user"
            messages.append({"role": role, "content": _text(turn)})
    tools = [
        {"type": "function", "function": {**declared, "parameters": _schema(declared)}}
        for tool in body.get("tools", [])
        for declared in tool.get("functionDeclarations", [])
    ]
    return {"model": model, "messages": messages, **({"tools": tools} if tools else {})}


def _schema(declared: dict[str, Any]) -> dict[str, Any]:
    return declared.get("parameters") or declared.get("parametersJsonSchema") or {"type": "object"}


def _text(turn: dict[str, Any]) -> str:
    return "".join(part.get("text", "") for part in turn["parts"])
