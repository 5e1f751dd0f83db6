"""Structured answers: the answer must fit the schema it was asked for, or be asked for again, or be an error."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct, structs

from llm_gate.domain.errors import AnswerNotInForm
from llm_gate.domain.messages import Conversation, Message, TextPart
from llm_gate.domain.ports import SchemaCheck
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult, Choice

MAX_REPAIRS = 3
_SHOWN_FAULTS = 5

Ask = Callable[[ChatRequest], Awaitable[ChatResult]]


class Checked(Struct, frozen=True, kw_only=True):
    """An answer that fits its schema, and the ones before it that did not, all of which were paid for."""

    result: ChatResult
    rejected: tuple[ChatResult, ...] = ()


async def ask_in_form(request: ChatRequest, target: Target, ask: Ask, check: SchemaCheck) -> Checked:
    """Ask until the answer fits the request's schema, at most `request.repairs` times more.

    An answer that is cut short, refused, or asks for a tool is handed out as it is: its finish reason says why
    it does not fit.

    Raises:
        InvalidRequest: the schema cannot be used; nothing has been spent.
        AnswerNotInForm: the last answer does not fit either.
    """
    if request.response_format is not None and request.response_format.schema is not None:
        check(bytes(request.response_format.schema), None)
    rejected: list[ChatResult] = []
    while True:
        result = await ask(request)
        faults = _faults(request, result, check)
        if not faults:
            return Checked(result=result, rejected=tuple(rejected))
        if len(rejected) >= min(request.repairs, MAX_REPAIRS):
            raise AnswerNotInForm(
                f"the answer of {target.name} does not fit the JSON Schema after {len(rejected) + 1} attempt(s): "
                f"{'; '.join(faults[:_SHOWN_FAULTS])}",
                provider=target.provider,
                model=target.wire_model,
            )
        rejected.append(result)
        request = _asked_again(request, result, faults)


def is_structured(request: ChatRequest) -> bool:
    """Tell whether a request names a schema for its answer."""
    wanted = request.response_format
    return wanted is not None and wanted.kind == "json_schema" and wanted.schema is not None


def _faults(request: ChatRequest, result: ChatResult, check: SchemaCheck) -> list[str]:
    wanted = request.response_format
    if wanted is None or wanted.schema is None:
        return []
    return [
        fault
        for choice in result.choices
        if choice.finish_reason == "stop" and not _refuses(choice)
        for fault in _faults_of(_text(choice.parts), bytes(wanted.schema), check)
    ]


def _refuses(choice: Choice) -> bool:
    return any(isinstance(part, TextPart) and part.refusal for part in choice.parts)


def _text(parts: Sequence[object]) -> str:
    return "".join(part.text for part in parts if isinstance(part, TextPart))


def _faults_of(text: str, schema: bytes, check: SchemaCheck) -> list[str]:
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, RecursionError):
        return ["the answer is not JSON"]
    return check(schema, value)


def _asked_again(request: ChatRequest, result: ChatResult, faults: Sequence[str]) -> ChatRequest:
    """Return the request with the answer that did not fit and what was wrong with it.

    It leaves in its neutral form: the conversation is no longer the one that came in.
    """
    before = request.conversation
    complaint = (
        "Your answer does not fit the required JSON Schema: "
        f"{'; '.join(faults[:_SHOWN_FAULTS])}. Answer again with the complete, corrected JSON and nothing else."
    )
    text = _text(result.choices[0].parts)
    added = (
        Message(role="assistant", parts=(TextPart(text=text or "(nothing)"),)),
        Message(role="user", parts=(TextPart(text=complaint),)),
    )
    conversation = Conversation(lambda: (*before.messages, *added))
    return structs.replace(request, conversation=conversation, wire=None)
