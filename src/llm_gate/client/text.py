"""One text, or one object, from a prompt: the request that is made of it, and what is read of the answer."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from llm_gate.bootstrap import Gateway
from llm_gate.client.answers import object_of
from llm_gate.client.calls import caller_of, context_of, told_plainly
from llm_gate.client.forms import schema_of
from llm_gate.domain.access import CallContext
from llm_gate.domain.errors import ContentFiltered, ContextTooLong, ProviderRejected
from llm_gate.domain.messages import Conversation, Message, ResponseFormat, TextPart
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult
from llm_gate.engine.answer import Answer

TEMPERATURE = 0.7
TOP_P = 0.9
MAX_TOKENS = 4_000

ENDPOINT = "llm_text_gen"


class TextCall(Struct, frozen=True, kw_only=True):
    """What a caller wants. Of `temperature`, `top_p` and `max_tokens`, None means the usual, where a model takes it.

    `usual_max_tokens` is how long an answer may be where nobody says. `endpoint` is what the records call it.
    """

    prompt: str
    system_prompt: str | None = None
    json_struct: Mapping[str, Any] | None = None
    user_id: str | None = None
    model: str = ""
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    max_tokens: int | None = None
    usual_max_tokens: int = MAX_TOKENS
    endpoint: str = ENDPOINT


async def generate(gateway: Gateway, wanted: TextCall) -> Any:
    """Make the call and return its text, or the object where `json_struct` is given.

    Raises:
        RuntimeError: there is no user id to count the call for.
        QuotaExceeded: a limit leaves no room.
        GateError: nobody could answer.
    """
    caller = caller_of(wanted.user_id)
    context = context_of(caller, wanted.endpoint)
    with told_plainly():
        standing = await gateway.gate.access.standing(caller)
        request, usual = _request(wanted, standing.plan.max_output_tokens)
        answer = await ask_leniently(gateway, request, usual, context)
    choice = answer.result.choices[0]
    text = "".join(part.text for part in choice.parts if isinstance(part, TextPart))
    return text if wanted.json_struct is None else object_of(text, choice, answer.target)


def _request(wanted: TextCall, plan_allows: int | None) -> tuple[ChatRequest, dict[str, Any]]:
    """Return the request, and those of its parameters that nobody asked for, by their names on the wire."""
    if not wanted.prompt.strip():
        raise ValueError("prompt: must be a text that is not empty")
    messages = [Message(role="user", parts=(TextPart(text=wanted.prompt),))]
    if wanted.system_prompt:
        messages.insert(0, Message(role="system", parts=(TextPart(text=wanted.system_prompt),)))
    usual: dict[str, Any] = {"top_p": TOP_P} if wanted.top_p is None else {}
    if wanted.temperature is None:
        usual["temperature"] = TEMPERATURE
    if wanted.max_tokens is None:
        usual["max_tokens"] = min(wanted.usual_max_tokens, plan_allows or wanted.usual_max_tokens)
    form = None if wanted.json_struct is None else schema_of(wanted.json_struct)
    request = ChatRequest(
        model=wanted.model,
        conversation=Conversation(lambda: tuple(messages)),
        needs=frozenset() if form is None else frozenset({"json_schema"}),
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        top_k=wanted.top_k,
        max_output_tokens=wanted.max_tokens,
        response_format=None
        if form is None
        else ResponseFormat(kind="json_schema", name="answer", schema=Raw(msgspec.json.encode(form))),
        repairs=0 if form is None else 1,
    )
    return request, usual


async def ask_leniently(
    gateway: Gateway, request: ChatRequest, usual: Mapping[str, Any], context: CallContext
) -> Answer[ChatResult]:
    """Ask with the usual parameters, and without those that a model turns out not to take."""
    try:
        return await gateway.gate.chat(_with(request, usual), context)
    except (ContextTooLong, ContentFiltered):
        raise
    except ProviderRejected as error:
        taken = without_refused(usual, error)
        if taken == usual:
            raise
        return await gateway.gate.chat(_with(request, taken), context)


def without_refused(usual: Mapping[str, Any], error: ProviderRejected) -> dict[str, Any]:
    """Return those of the usual parameters that a refusal says nothing of."""
    said = f"{error.param} {error.message} {error.detail}".replace("max_completion_tokens", "max_tokens")
    return {name: value for name, value in usual.items() if name not in said}


def _with(request: ChatRequest, usual: Mapping[str, Any]) -> ChatRequest:
    return structs.replace(
        request,
        temperature=usual.get("temperature", request.temperature),
        top_p=usual.get("top_p", request.top_p),
        max_output_tokens=usual.get("max_tokens", request.max_output_tokens),
    )
