"""Structured answers: the answer must fit the schema it was asked for, or be asked for again, or be an error."""

from collections.abc import Awaitable, Callable, Sequence

import msgspec
from msgspec import Struct, structs

from llm_gate.domain.errors import AnswerNotInForm
from llm_gate.domain.events import ChatEvent, Ended, Finished, TextDelta, Verbatim, VerbatimUsage
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
    if (schema := request.answer_schema) is not None:
        check(schema, None)
    rejected: list[ChatResult] = []
    while True:
        result = await ask(request)
        faults = _faults(request, result, check)
        if not faults:
            return Checked(result=result, rejected=tuple(rejected))
        if len(rejected) >= min(request.repairs, MAX_REPAIRS):
            raise _misfit(target, faults, f" after {len(rejected) + 1} attempt(s)")
        rejected.append(result)
        request = _asked_again(request, result, faults)


def is_structured(request: ChatRequest) -> bool:
    """Tell whether a request names a schema for its answer."""
    return request.answer_schema is not None


class StreamedForm:
    """Reads along with one streamed answer, and holds back the end of a choice that does not fit the schema.

    What went before is out already, so nothing is asked again: the stream goes on without a word, for the counts
    that may follow, and where it would have ended, `failure` is raised instead.
    """

    def __init__(self, schema: bytes, target: Target, check: SchemaCheck) -> None:
        """Begin to read.

        Raises:
            InvalidRequest: the schema cannot be used.
        """
        check(schema, None)
        self.failure: AnswerNotInForm | None = None
        self._schema = schema
        self._target = target
        self._check = check
        self._texts: dict[int, list[str]] = {}
        self._settled: set[int] = set()

    def pass_on(self, events: Sequence[ChatEvent]) -> Sequence[ChatEvent]:
        """Take the next events and return those that may go out: all of them, or none from a misfit's end on."""
        passing: list[ChatEvent] = []
        for event in events:
            if self.failure is None:
                self._read(event)
            if self.failure is not None:
                break
            passing.append(event)
        return passing

    def _read(self, event: ChatEvent) -> None:
        match event:
            case TextDelta(refusal=True):
                self._settled.add(event.index)
            case TextDelta():
                self._texts.setdefault(event.index, []).append(event.text)
            case Finished():
                self._finish(event.index, is_complete=event.reason == "stop")
            case Verbatim() | VerbatimUsage():
                for meant in event.meaning:
                    self._read(meant)
            case Ended():
                # A choice whose reason the vendor left out counts as a plain stop, and so does an empty answer.
                for index in tuple(self._texts) or (0,):
                    self._finish(index, is_complete=True)

    def _finish(self, index: int, *, is_complete: bool) -> None:
        text = "".join(self._texts.pop(index, ()))
        if index in self._settled:
            return
        self._settled.add(index)
        if is_complete and (faults := _faults_of(text, self._schema, self._check)):
            self.failure = _misfit(self._target, faults)


def _misfit(target: Target, faults: Sequence[str], tries: str = "") -> AnswerNotInForm:
    return AnswerNotInForm(
        f"the answer of {target.name} does not fit the JSON Schema{tries}: {'; '.join(faults[:_SHOWN_FAULTS])}",
        provider=target.provider,
        model=target.wire_model,
    )


def _faults(request: ChatRequest, result: ChatResult, check: SchemaCheck) -> list[str]:
    schema = request.answer_schema
    if schema is None:
        return []
    return [
        fault
        for choice in result.choices
        if choice.finish_reason == "stop" and not _refuses(choice)
        for fault in _faults_of(_text(choice.parts), schema, check)
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
