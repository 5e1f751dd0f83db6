"""Which parts of a request can be carried over to another dialect: refuse, drop, or keep."""

from collections.abc import Set as AbstractSet

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.requests import ChatRequest

MEANINGFUL = frozenset({"n", "tools", "tool_choice", "response_format", "logprobs", "modalities", "stop"})
"""Parameters that change what the answer means: refused where they cannot be carried over."""


def carry_over(request: ChatRequest, supported: AbstractSet[str], provider: str) -> tuple[str, ...]:
    """Return the hints of a request that this outbound dialect has to drop, by wire name.

    `supported` holds the names of `given` that the dialect can express.

    Raises:
        InvalidRequest: something that changes the meaning of the answer cannot be expressed.
    """
    if request.binding:
        _refuse(request.binding[0], provider)
    dropped: list[str] = []
    for name in given(request):
        if name in supported:
            continue
        if name in MEANINGFUL:
            _refuse(name, provider)
        dropped.append(name)
    return (*dropped, *request.extra)


def given(request: ChatRequest) -> list[str]:
    """Name the parameters that the caller set to something other than the plain default."""
    optional = {
        "max_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "seed": request.seed,
        "parallel_tool_calls": request.parallel_tool_calls,
        "reasoning_effort": request.reasoning_effort,
        "thinking": request.thinking_budget_tokens,
        "user": request.user,
        "service_tier": request.service_tier,
        "tool_choice": request.tool_choice,
    }
    names = [name for name, value in optional.items() if value is not None]
    if request.n not in {None, 1}:
        names.append("n")
    if request.stop:
        names.append("stop")
    if request.tools:
        names.append("tools")
    if request.response_format is not None and request.response_format.kind != "text":
        names.append("response_format")
    if request.logprobs or request.top_logprobs:
        names.append("logprobs")
    if request.modalities not in {(), ("text",)}:
        names.append("modalities")
    return names


def _refuse(name: str, provider: str) -> None:
    raise InvalidRequest(
        f"{name}: cannot be carried over to provider {provider!r}", param=name, code="unsupported_parameter"
    )
