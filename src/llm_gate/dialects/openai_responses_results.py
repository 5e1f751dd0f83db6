"""Answers in OpenAI's Responses format, written to callers: the items of the output and the object around them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from msgspec import Struct

from llm_gate.dialects.openai_messages import write_tool_call
from llm_gate.dialects.openai_responses_items import seal
from llm_gate.dialects.openai_usage import cost_number, vendor_cost
from llm_gate.domain.messages import Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.pricing import Cost
from llm_gate.domain.results import ChatResult, Choice, FinishReason
from llm_gate.domain.usage import Usage

ItemStatus = Literal["in_progress", "completed", "incomplete"]
INCOMPLETE: Mapping[FinishReason, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why an answer is incomplete, by its finish reason; the others mean that it is complete."""


class Frame(Struct, frozen=True, kw_only=True):
    """What surrounds the output: ids are made of `id_stem`, `echo` is what the answer repeats of its request.

    `synthetic` marks an answer that no model gave.
    """

    id_stem: str
    model: str
    created_s: int
    echo: Mapping[str, Any]
    synthetic: bool = False

    def item_id(self, kind: str, index: int) -> str:
        """Return the id of the item at a place of the output."""
        return f"{kind}_{self.id_stem}_{index}"

    def write(self, status: str, output: Sequence[Mapping[str, Any]], **more: Any) -> dict[str, Any]:
        """Write a response object; `more` are fields that are null otherwise."""
        return {
            "id": f"resp_{self.id_stem}",
            "object": "response",
            "created_at": self.created_s,
            "completed_at": None,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "model": self.model,
            "output": output,
            "usage": None,
            **self.echo,
            **({"synthetic": True} if self.synthetic else {}),
            **more,
        }

    def ended(
        self,
        reason: FinishReason,
        output: Sequence[Mapping[str, Any]],
        *,
        completed_s: int,
        usage: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """Write the response object of an answer that came to its end, be it cut short by a limit or a filter."""
        if reason in INCOMPLETE:
            details = {"reason": INCOMPLETE[reason]}
            return self.write("incomplete", output, incomplete_details=details, usage=usage)
        return self.write("completed", output, completed_at=completed_s, usage=usage)


def encode_response(result: ChatResult, frame: Frame, *, completed_s: int, cost: Cost | None) -> bytes:
    """Write a complete answer; its first choice is the output."""
    choice = result.choices[0]
    usage = None if result.usage is None else write_usage(result.usage, cost)
    return msgspec.json.encode(
        frame.ended(choice.finish_reason, _output(choice, frame), completed_s=completed_s, usage=usage)
    )


def _output(choice: Choice, frame: Frame) -> list[dict[str, Any]]:
    """Write the parts of an answer as items: a run of text is one message, all else an item of its own."""
    last_status: ItemStatus = "incomplete" if choice.finish_reason in INCOMPLETE else "completed"
    groups = _grouped(choice.parts)
    if choice.finish_reason == "stop" and all(isinstance(group[0], ThinkingPart) for group in groups):
        # Clients look for the message of a finished answer, also where nothing was said.
        groups.append([TextPart(text="")])
    output = []
    for index, group in enumerate(groups):
        status: ItemStatus = last_status if index == len(groups) - 1 else "completed"
        output.append(_item(group, index, status, frame))
    for item in output:
        if item["type"] == "message" and choice.logprobs is not None:
            _add_logprobs(item, choice)
            break
    return output


def _grouped(parts: tuple[Part, ...]) -> list[list[Part]]:
    groups: list[list[Part]] = []
    for part in parts:
        follows_text = bool(groups) and isinstance(groups[-1][0], TextPart)
        if isinstance(part, TextPart) and follows_text:
            last = groups[-1][-1]
            if isinstance(last, TextPart) and last.refusal == part.refusal:
                groups[-1][-1] = TextPart(text=last.text + part.text, refusal=part.refusal)
            else:
                groups[-1].append(part)
        elif isinstance(part, TextPart | ThinkingPart | ToolCallPart):
            groups.append([part])
    return groups


def _item(group: list[Part], index: int, status: ItemStatus, frame: Frame) -> dict[str, Any]:
    match group[0]:
        case ThinkingPart() as thought:
            return reasoning_item(frame.item_id("rs", index), thought, status)
        case ToolCallPart() as call:
            return call_item(frame.item_id("fc", index), call, status)
        case _:
            content = [
                text_part(part.text, refusal=part.refusal) for part in group if isinstance(part, TextPart)
            ]
            return message_item(frame.item_id("msg", index), content, status)


def _add_logprobs(item: dict[str, Any], choice: Choice) -> None:
    document = msgspec.json.decode(choice.logprobs or b"{}")
    found = document.get("content") if isinstance(document, dict) else None
    for part in item["content"]:
        if part["type"] == "output_text" and isinstance(found, list):
            part["logprobs"] = [{"bytes": [], "top_logprobs": [], **each} for each in found]
            return


def text_part(text: str, *, refusal: bool) -> dict[str, Any]:
    """Write a part of a message."""
    if refusal:
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def message_item(item_id: str, content: list[dict[str, Any]], status: ItemStatus) -> dict[str, Any]:
    """Write a message."""
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(item_id: str, thought: ThinkingPart, status: ItemStatus) -> dict[str, Any]:
    """Write shown reasoning; what must travel back unchanged goes into its opaque field."""
    summary = [{"type": "summary_text", "text": thought.text}] if thought.text else []
    item = {"id": item_id, "type": "reasoning", "status": status, "summary": summary}
    sealed = seal(thought)
    return item if sealed is None else {**item, "encrypted_content": sealed}


def call_item(item_id: str, call: ToolCallPart, status: ItemStatus) -> dict[str, Any]:
    """Write a tool call; a signature rides where it does in the chat format."""
    written = write_tool_call(call)
    item = {
        "id": item_id,
        "type": "function_call",
        "status": status,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
    }
    return item | {name: written[name] for name in ("extra_content",) if name in written}


def write_usage(usage: Usage, cost: Cost | None) -> dict[str, Any]:
    """Write a usage object with the cost in dollars beside the counts (null when unknown)."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
        "cost": cost_number(cost),
        **vendor_cost(usage),
    }
