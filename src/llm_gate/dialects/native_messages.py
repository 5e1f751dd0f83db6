"""Messages of the native wire format, read from callers into neutral form, with every fault they have."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from llm_gate.dialects.native_wire import ContentPart, MessageBody, ToolCallBody
from llm_gate.dialects.openai_messages import media_from_url
from llm_gate.domain.errors import Fault, InvalidRequest
from llm_gate.domain.messages import MediaPart, Message, Part, Role, TextPart, ToolCallPart, ToolResultPart

# Fields that only some roles may carry.
_ROLES_OF = {
    "tool_call_id": ("toolCallId", frozenset({"tool", "function"})),
    "tool": ("tool", frozenset({"assistant", "tool"})),
    "tool_calls": ("toolCalls", frozenset({"assistant"})),
}
_MISSING = "required field is missing"


def read_messages(bodies: Sequence[MessageBody], path: str) -> tuple[tuple[Message, ...], list[Fault]]:
    """Translate messages whose shape is right, and return what is wrong with their content."""
    reader = _Reader()
    for index, body in enumerate(bodies):
        reader.read(body, index, f"{path}[{index}]")
    return reader.messages, reader.faults


class _OpenCalls:
    """The tool calls that nobody has answered yet; each step takes constant time, however many there are."""

    def __init__(self) -> None:
        self._calls: dict[int, ToolCallPart] = {}
        self._queues: dict[tuple[str | None, str | None], deque[int]] = {}
        self._count = 0

    def add(self, call: ToolCallPart) -> None:
        """Remember a call under its id, its name and its turn."""
        self._calls[self._count] = call
        for key in ((call.id, None), (None, call.name), (None, None)):
            self._queues.setdefault(key, deque()).append(self._count)
        self._count += 1

    def take(self, call_id: str | None, name: str | None) -> ToolCallPart | None:
        """Return the call that is answered: by id, else the oldest open one (of that name, if given)."""
        queue = self._queues.get((call_id, None) if call_id is not None else (None, name), deque())
        while queue:
            call = self._calls.pop(queue.popleft(), None)
            if call is not None:
                return call
        return None


class _Draft(NamedTuple):
    """A message that may still grow."""

    role: Role
    parts: list[Part]
    name: str | None = None


class _Reader:
    """Goes through a conversation once."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._drafts: list[_Draft] = []
        self._open_calls = _OpenCalls()

    @property
    def messages(self) -> tuple[Message, ...]:
        """What was read so far."""
        return tuple(
            Message(role=draft.role, parts=tuple(draft.parts), name=draft.name) for draft in self._drafts
        )

    def read(self, body: MessageBody, index: int, path: str) -> None:
        """Take the next message."""
        for field, (name, roles) in _ROLES_OF.items():
            if getattr(body, field) is not None and body.role not in roles:
                self._fault(f"{path}.{name}", f"does not belong to a message of role {body.role!r}")
        if body.role in {"tool", "function"}:
            self._read_tool(body, index, path)
            return
        parts: list[Part] = [*self._content(body.content, f"{path}.content")]
        if body.role == "assistant":
            given = (*((body.tool,) if body.tool is not None else ()), *(body.tool_calls or ()))
            calls = self._calls(given, index)
            if body.content is None and not calls:
                self._fault(f"{path}.content", _MISSING)
            self._drafts.append(_Draft("assistant", [*parts, *calls], body.name))
        else:
            if body.content is None:
                self._fault(f"{path}.content", _MISSING)
            self._drafts.append(_Draft("system" if body.role == "system" else "user", parts, body.name))

    def _read_tool(self, body: MessageBody, index: int, path: str) -> None:
        if body.role == "function" or body.tool is None:
            self._read_result(body, path)
        elif body.content is not None:
            self._fault(path, "carries either a tool's answer in content or a call in tool, not both")
        else:
            self._echo(self._calls((body.tool,), index))

    def _echo(self, calls: tuple[ToolCallPart, ...]) -> None:
        """Take a call that came as a message of its own; vendors want it in the assistant's turn."""
        if self._drafts and self._drafts[-1].role == "assistant":
            self._drafts[-1].parts.extend(calls)
        else:
            self._drafts.append(_Draft("assistant", list(calls)))

    def _read_result(self, body: MessageBody, path: str) -> None:
        if body.content is None:
            self._fault(f"{path}.content", _MISSING)
        call = self._open_calls.take(body.tool_call_id, body.name)
        tool_call_id = body.tool_call_id or (call.id if call is not None else body.name)
        if tool_call_id is None:
            self._fault(f"{path}.toolCallId", f"{_MISSING}: no open tool call precedes")
            return
        result = ToolResultPart(
            tool_call_id=tool_call_id,
            content=tuple(self._content(body.content, f"{path}.content")),
            name=body.name or (call.name if call is not None else None),
        )
        self._drafts.append(_Draft("tool", [result]))

    def _calls(self, bodies: Sequence[ToolCallBody], index: int) -> tuple[ToolCallPart, ...]:
        calls = tuple(
            ToolCallPart(
                id=body.id or f"call_{index}_{position}", name=body.name, arguments=body.arguments or "{}"
            )
            for position, body in enumerate(bodies)
        )
        for call in calls:
            self._open_calls.add(call)
        return calls

    def _content(self, content: str | list[ContentPart] | None, path: str) -> list[TextPart | MediaPart]:
        if content is None:
            return []
        if isinstance(content, str):
            return [TextPart(text=content)]
        if not content:
            self._fault(path, "must hold at least one part")
        read = (self._part(part, f"{path}[{index}]") for index, part in enumerate(content))
        return [part for part in read if part is not None]

    def _part(self, part: ContentPart, path: str) -> TextPart | MediaPart | None:
        wanted, other = ("text", "imageUrl") if part.type == "text" else ("imageUrl", "text")
        text, image = part.text, part.image_url
        if (image if wanted == "text" else text) is not None:
            self._fault(f"{path}.{other}", f"does not belong to a part of type {part.type!r}")
        if wanted == "text" and text is not None:
            return TextPart(text=text)
        if wanted == "imageUrl" and image is not None:
            where = f"{path}.imageUrl.url"
            try:
                return media_from_url("image", image.url, where, detail=image.detail)
            except InvalidRequest as error:
                self._fault(where, error.message.removeprefix(f"{where}: "))
                return None
        self._fault(f"{path}.{wanted}", _MISSING)
        return None

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(Fault(path, message))
