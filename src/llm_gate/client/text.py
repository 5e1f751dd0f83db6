"""One text, or one object, from a prompt: the request that is made of it, and what is read of the answer."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Raw, Struct, structs

from llm_gate.bootstrap import Gateway
from llm_gate.client.errors import QuotaExceeded
from llm_gate.client.forms import schema_of
from llm_gate.domain import errors
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import AnswerNotInForm, ContentFiltered, ContextTooLong, ProviderRejected
from llm_gate.domain.messages import Conversation, Message, ResponseFormat, TextPart
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult
from llm_gate.engine.gate import Answer

LIBRARY = "library"
"""The application under which calls of the library are recorded."""

TEMPERATURE = 0.7
TOP_P = 0.9
MAX_TOKENS = 4_000

_ENDPOINT = "llm_text_gen"
_MAX_USER_CHARS = 256


class TextCall(Struct, frozen=True, kw_only=True):
    """What a caller wants. Of `temperature` and `max_tokens`, None means the usual, where the provider takes it."""

    prompt: str
    system_prompt: str | None = None
    json_struct: Mapping[str, Any] | None = None
    user_id: str | None = None
    model: str = ""
    temperature: float | None = None
    max_tokens: int | None = None


async def generate(gateway: Gateway, wanted: TextCall) -> Any:
    """Make the call and return its text, or the object where `json_struct` is given.

    Raises:
        RuntimeError: there is no user id to count the call for.
        QuotaExceeded: a limit leaves no room.
        GateError: nobody could answer.
    """
    caller = Caller(application=LIBRARY, user=_user(wanted.user_id))
    context = CallContext(
        request_id=f"lib_{uuid4().hex}",
        caller=caller,
        received_at=datetime.now(UTC),
        headers={},
        endpoint=_ENDPOINT,
    )
    try:
        standing = await gateway.gate.access.standing(caller)
        request, usual = _request(wanted, standing.plan.max_output_tokens)
        answer = await _ask(gateway, request, usual, context)
    except errors.QuotaExceeded as error:
        raise QuotaExceeded(error) from None
    return _text(answer.result) if wanted.json_struct is None else _object(answer)


def _user(user_id: str | None) -> str:
    if not isinstance(user_id, str) or not user_id.strip():
        raise RuntimeError(
            "user_id is required: every call is counted for a user, and limited by the user's plan"
        )
    if len(user_id) > _MAX_USER_CHARS or not user_id.isprintable():
        raise ValueError(f"user_id: must be printable text of at most {_MAX_USER_CHARS} characters")
    return user_id


def _request(wanted: TextCall, plan_allows: int | None) -> tuple[ChatRequest, dict[str, Any]]:
    """Return the request, and those of its parameters that nobody asked for, by their names on the wire."""
    if not wanted.prompt.strip():
        raise ValueError("prompt: must be a text that is not empty")
    messages = [Message(role="user", parts=(TextPart(text=wanted.prompt),))]
    if wanted.system_prompt:
        messages.insert(0, Message(role="system", parts=(TextPart(text=wanted.system_prompt),)))
    usual: dict[str, Any] = {"top_p": TOP_P}
    if wanted.temperature is None:
        usual["temperature"] = TEMPERATURE
    if wanted.max_tokens is None:
        usual["max_tokens"] = min(MAX_TOKENS, plan_allows or MAX_TOKENS)
    form = None if wanted.json_struct is None else schema_of(wanted.json_struct)
    request = ChatRequest(
        model=wanted.model,
        conversation=Conversation(lambda: tuple(messages)),
        needs=frozenset() if form is None else frozenset({"json_schema"}),
        temperature=wanted.temperature,
        max_output_tokens=wanted.max_tokens,
        response_format=None
        if form is None
        else ResponseFormat(kind="json_schema", name="answer", schema=Raw(msgspec.json.encode(form))),
        repairs=0 if form is None else 1,
    )
    return request, usual


async def _ask(
    gateway: Gateway, request: ChatRequest, usual: dict[str, Any], context: CallContext
) -> Answer[ChatResult]:
    """Ask with the usual parameters, and without those that a model turns out not to take."""
    try:
        return await gateway.gate.chat(_with(request, usual), context)
    except (ContextTooLong, ContentFiltered):
        raise
    except ProviderRejected as error:
        said = f"{error.param} {error.message} {error.detail}".replace("max_completion_tokens", "max_tokens")
        taken = {name: value for name, value in usual.items() if name not in said}
        if taken == usual:
            raise
        return await gateway.gate.chat(_with(request, taken), context)


def _with(request: ChatRequest, usual: Mapping[str, Any]) -> ChatRequest:
    return structs.replace(
        request,
        temperature=usual.get("temperature", request.temperature),
        top_p=usual.get("top_p"),
        max_output_tokens=usual.get("max_tokens", request.max_output_tokens),
    )


def _text(result: ChatResult) -> str:
    return "".join(part.text for part in result.choices[0].parts if isinstance(part, TextPart))


def _object(answer: Answer[ChatResult]) -> Any:
    """Read the answer's object; what came complete has been checked against the schema already."""
    choice, target = answer.result.choices[0], answer.target
    try:
        return msgspec.json.decode(_text(answer.result))
    except msgspec.DecodeError:
        raise AnswerNotInForm(
            f"the answer of {target.name} is not the object it was asked for (finish reason {choice.finish_reason!r})",
            provider=target.provider,
            model=target.wire_model,
        ) from None
