"""The model list in the OpenAI wire format, with the context and pricing fields OpenRouter established."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from llm_gate.domain.catalog import Model
from llm_gate.domain.money import NANOS_PER_USD
from llm_gate.domain.offers import Offer
from llm_gate.domain.pricing import Unit, price_for
from llm_gate.domain.usage import Usage

_PRICE_KEYS: tuple[tuple[str, Unit], ...] = (
    ("prompt", "input_tokens"),
    ("completion", "output_tokens"),
    ("request", "requests"),
    ("image", "image_inputs"),
    ("audio", "audio_input_tokens"),
    ("input_cache_read", "cached_input_tokens"),
    ("input_cache_write", "cache_write_tokens"),
)
_OUTPUT = {"chat": "text", "embedding": "embeddings", "image": "image", "image_edit": "image"}
_INPUT = {"images": "image", "audio": "audio", "video": "video", "files": "file"}
_CHAT_PARAMETERS = ["max_tokens", "temperature", "top_p", "stop", "stream"]


class Architecture(Struct, frozen=True, kw_only=True):
    """What goes in and what comes out."""

    input_modalities: list[str]
    output_modalities: list[str]


class TopProvider(Struct, frozen=True, kw_only=True):
    """The limits of the model at its provider, in tokens."""

    context_length: int | None
    max_completion_tokens: int | None


class ModelObject(Struct, frozen=True, kw_only=True):
    """One model. `pricing` holds dollars per token (or per request, per image) as decimal text."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str
    canonical_slug: str
    name: str
    description: str
    context_length: int | None
    architecture: Architecture
    pricing: dict[str, str]
    top_provider: TopProvider
    supported_parameters: list[str]


class ModelList(Struct, frozen=True, kw_only=True):
    """All models that can be used now."""

    object: Literal["list"] = "list"
    data: list[ModelObject]


def list_models(offers: Sequence[Offer], on: date) -> list[ModelObject]:
    """List the models that can be used on a day."""
    usable = usable_models(offers, on)
    return [model_object(f"{model.provider}/{model.name}", model, on) for model in usable]


def usable_models(offers: Sequence[Offer], on: date) -> list[Model]:
    """Return the models that can be used on a day."""
    return [model for offer in offers for model in offer.models if offer.can_use(model, on)]


def model_object(name: str, model: Model, on: date) -> ModelObject:
    """Describe a model under the name it was asked for."""
    abilities = model.abilities
    parameters = list(_CHAT_PARAMETERS) if "chat" in model.operations else []
    parameters += ["tools", "tool_choice"] if "tools" in abilities else []
    parameters += ["response_format"] if abilities & {"json_object", "json_schema"} else []
    parameters += ["reasoning_effort"] if "thinking" in abilities else []
    return ModelObject(
        id=name,
        owned_by=model.provider,
        canonical_slug=f"{model.provider}/{model.name}",
        name=model.label,
        description=model.description,
        context_length=model.context_window,
        architecture=Architecture(
            input_modalities=["text", *(word for ability, word in _INPUT.items() if ability in abilities)],
            output_modalities=sorted({_OUTPUT[op] for op in model.operations if op in _OUTPUT}),
        ),
        pricing=_pricing(model, on),
        top_provider=TopProvider(
            context_length=model.context_window, max_completion_tokens=model.max_output_tokens
        ),
        supported_parameters=parameters,
    )


def _pricing(model: Model, on: date) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, unit in _PRICE_KEYS:
        price = price_for(model.prices, unit, Usage(), on)
        if price is not None:
            found[key] = _decimal_text(price.nanos / price.per / NANOS_PER_USD)
    return found


def _decimal_text(amount: Fraction) -> str:
    """Write an exact amount as plain decimal text; prices are decimal fractions of powers of ten."""
    return format((Decimal(amount.numerator) / Decimal(amount.denominator)).normalize(), "f")
