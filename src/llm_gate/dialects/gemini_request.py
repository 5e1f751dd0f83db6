"""Chat requests in Gemini's wire format: the body of generateContent from a neutral request.

Contract: https://ai.google.dev/api/generate-content
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import quote

import msgspec

from llm_gate.dialects._fields import carry_over
from llm_gate.dialects.gemini_contents import model_family, write_contents
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.messages import ResponseFormat, Tool, ToolChoice
from llm_gate.domain.provider import Encoded, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest

JSON_HEADERS: Mapping[str, str] = {"content-type": "application/json"}

_SUPPORTED = frozenset(
    {
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
        "stop",
        "n",
        "tools",
        "tool_choice",
        "response_format",
    }
)
_SEED_LIMIT = 2**31
_FIRST_WITH_LEVELS = (3, 0)
_WITH_BUDGETS = (2, 5)

# The vendor's own table for this parameter: https://ai.google.dev/gemini-api/docs/openai#thinking
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
# "minimal" is an error for some models of the family, "low" for none; thinking cannot be switched off there.
_LEVELS = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "high"}

_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY", "named": "ANY"}


def encode_chat(request: ChatRequest, target: Target) -> Encoded:
    """Build the request for a whole or a streamed answer.

    Raises:
        InvalidRequest: it asks for something that cannot be carried over.
    """
    thinking = _thinking(request, target.wire_model)
    supported = _supported(request, has_thinking=thinking is not None)
    supported -= frozenset(target.deployment.spec.drop)
    dropped = list(carry_over(request, supported, target.provider))
    contents = write_contents(request.conversation.messages, target)
    dropped += contents.dropped
    body: dict[str, Any] = {"contents": contents.turns}
    if contents.system:
        body["systemInstruction"] = {"parts": contents.system}
    if request.tools:
        body["tools"] = [{"functionDeclarations": [_declaration(tool) for tool in request.tools]}]
        dropped += [f"tools[{i}].function.strict" for i, tool in enumerate(request.tools) if tool.strict]
    if request.tool_choice is not None and (config := _tool_config(request.tool_choice, request.tools)):
        body["toolConfig"] = config
    settings = _settings(request, supported)
    if request.response_format is not None:
        settings |= _format(request.response_format)
    if thinking is not None and supported & {"reasoning_effort", "thinking"}:
        settings["thinkingConfig"] = thinking
    if settings:
        body["generationConfig"] = settings
    method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
    http = HttpRequest(
        method="POST",
        url=model_url(target, method),
        body=msgspec.json.encode(body),
        headers=JSON_HEADERS,
    )
    return Encoded(request=http, dropped=tuple(dict.fromkeys(dropped)))


def model_path(target: Target) -> str:
    """Return the resource name of the model; tuned models have a collection of their own.

    Raises:
        InvalidRequest: the name would lead to another address.
    """
    name = target.wire_model
    if any(segment in {"", ".", ".."} for segment in name.split("/")):
        raise InvalidRequest(f"model: {name!r} is not a model name", param="model")
    return name if name.startswith(("models/", "tunedModels/")) else f"models/{name}"


def model_url(target: Target, method: str) -> str:
    """Return the address of a method of the model."""
    return f"{target.deployment.base_url}/{quote(model_path(target), safe='/')}:{method}"


def _supported(request: ChatRequest, *, has_thinking: bool) -> AbstractSet[str]:
    supported = set(_SUPPORTED)
    if has_thinking:
        supported |= {"reasoning_effort", "thinking"}
    # The vendor's seed has 32 bits; a larger one would turn a hint into a refusal.
    if request.seed is not None and -_SEED_LIMIT <= request.seed < _SEED_LIMIT:
        supported.add("seed")
    # Stream events have no place for log probabilities.
    if not request.stream:
        supported.add("logprobs")
    return supported


def _settings(request: ChatRequest, supported: AbstractSet[str]) -> dict[str, Any]:
    values: tuple[tuple[str, str, Any], ...] = (
        ("max_tokens", "maxOutputTokens", request.max_output_tokens),
        ("temperature", "temperature", request.temperature),
        ("top_p", "topP", request.top_p),
        ("top_k", "topK", request.top_k),
        ("frequency_penalty", "frequencyPenalty", request.frequency_penalty),
        ("presence_penalty", "presencePenalty", request.presence_penalty),
        ("stop", "stopSequences", request.stop or None),
        ("n", "candidateCount", None if request.n == 1 else request.n),
        ("seed", "seed", request.seed),
        ("logprobs", "responseLogprobs", True if request.logprobs or request.top_logprobs else None),
        ("logprobs", "logprobs", request.top_logprobs or None),
    )
    return {wire: value for name, wire, value in values if value is not None and name in supported}


def _format(wanted: ResponseFormat) -> dict[str, Any]:
    if wanted.kind == "text":
        return {}
    # responseJsonSchema takes JSON Schema as it is; responseSchema is an older subset with its own type names.
    # https://ai.google.dev/gemini-api/docs/structured-output
    schema = {} if wanted.schema is None else {"responseJsonSchema": wanted.schema}
    return {"responseMimeType": "application/json", **schema}


def _declaration(tool: Tool) -> dict[str, Any]:
    body: dict[str, Any] = {"name": tool.name}
    if tool.description is not None:
        body["description"] = tool.description
    if tool.parameters is not None:
        body["parametersJsonSchema"] = tool.parameters
    return body


def _tool_config(choice: ToolChoice, tools: tuple[Tool, ...]) -> dict[str, Any] | None:
    if not tools:
        # Without tools the vendor refuses any such setting; "none" and "auto" are true anyway.
        if choice.mode in {"auto", "none"}:
            return None
        raise InvalidRequest("tool_choice: asks for a tool where there are no tools", param="tool_choice")
    config: dict[str, Any] = {"mode": _MODES[choice.mode]}
    if choice.mode == "named":
        config["allowedFunctionNames"] = [choice.name]
    return {"functionCallingConfig": config}


def _thinking(request: ChatRequest, model: str) -> dict[str, Any] | None:
    """Return the setting that stands for an effort or a budget; None where the family does not tell which."""
    effort, family = request.reasoning_effort, model_family(model)
    budget_tokens = request.thinking_budget_tokens
    if effort is None and budget_tokens is not None and family is not None and family >= _FIRST_WITH_LEVELS:
        effort = _effort_of(budget_tokens)
    if (
        family == _WITH_BUDGETS
        and budget_tokens is not None
        and "-image" not in model
        and "-tts" not in model
    ):
        return _budget(budget_tokens, model)
    if effort is None or family is None or "-image" in model or "-tts" in model:
        return None
    if family >= _FIRST_WITH_LEVELS:
        return {"thinkingLevel": _LEVELS[effort]} if effort in _LEVELS else None
    if family != _WITH_BUDGETS:
        return None
    if effort == "none":
        # The large model of the family cannot stop thinking: https://ai.google.dev/gemini-api/docs/thinking
        return None if "-pro" in model else {"thinkingBudget": 0}
    return {"thinkingBudget": _BUDGETS[effort]} if effort in _BUDGETS else None


def _effort_of(budget_tokens: int) -> str | None:
    """Return the effort a budget comes nearest to by the vendor's table; None for no thinking at all."""
    if not budget_tokens:
        return None
    return next((word for word in ("low", "medium") if budget_tokens <= _BUDGETS[word]), "high")


def _budget(budget_tokens: int, model: str) -> dict[str, Any] | None:
    """Return a budget as the family takes it; a caller who sets one expects to see the thoughts."""
    if not budget_tokens:
        return None if "-pro" in model else {"thinkingBudget": 0}
    return {"thinkingBudget": min(budget_tokens, _BUDGETS["high"]), "includeThoughts": True}
