"""The list of providers in the native wire format, with the spellings of the documents (`model`, `tranningData`)."""

from collections.abc import Sequence
from datetime import date

import msgspec
from msgspec import UNSET, Struct, UnsetType

from llm_gate.dialects.native_costs import UNIT_OF_MEASURE, price_number
from llm_gate.dialects.native_wire import Number
from llm_gate.domain.catalog import Model
from llm_gate.domain.offers import Offer
from llm_gate.domain.pricing import Price, PriceCondition, price_for
from llm_gate.domain.usage import Usage

_PLAIN = PriceCondition()


class _Listing(Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of the list."""


class TokenRates(_Listing, frozen=True, kw_only=True):
    """What `unitOfMeasure` tokens cost; embeddings have no output."""

    input_value: Number | UnsetType = UNSET
    output_value: Number | UnsetType = UNSET


class PixelRate(_Listing, frozen=True, kw_only=True):
    """What one picture of a size and quality costs."""

    width: int | UnsetType = UNSET
    height: int | UnsetType = UNSET
    quality: str | UnsetType = UNSET
    value: Number


class PriceListing(_Listing, frozen=True, kw_only=True):
    """One price: of tokens, or of a picture (for which `unitOfMeasure` means nothing)."""

    id: str
    unit_of_measure: int = UNIT_OF_MEASURE
    currency: str = "USD"
    token: TokenRates | UnsetType = UNSET
    pixel: PixelRate | UnsetType = UNSET


class ModelListing(_Listing, frozen=True, kw_only=True):
    """One model; `enabled` tells whether it can be used now."""

    id: str
    name: str
    label: str
    description: str
    context_window: int | UnsetType = UNSET
    tranning_data: str | UnsetType = UNSET
    price: list[PriceListing] | UnsetType = UNSET
    enabled: bool


class ProviderListing(_Listing, frozen=True, kw_only=True):
    """One provider with its models; `enabled` tells whether it can be used now."""

    id: str
    name: str
    label: str
    description: str
    enabled: bool
    model: list[ModelListing]


class ProvidersReply(_Listing, frozen=True, kw_only=True):
    """Every provider of the catalog."""

    data: list[ProviderListing]


def encode_providers(offers: Sequence[Offer], on: date) -> bytes:
    """Write the list; `on` says which models can still be used, and which prices are valid."""
    return msgspec.json.encode(ProvidersReply(data=[_provider(offer, on) for offer in offers]))


def _provider(offer: Offer, on: date) -> ProviderListing:
    return ProviderListing(
        id=offer.entry.id,
        name=offer.entry.name,
        label=offer.entry.label,
        description=offer.entry.description,
        enabled=offer.enabled,
        model=[_model(model, offer.can_use(model, on), on) for model in offer.models],
    )


def _model(model: Model, enabled: bool, on: date) -> ModelListing:
    return ModelListing(
        id=model.id,
        name=model.name,
        label=model.label,
        description=model.description,
        context_window=UNSET if model.context_window is None else model.context_window,
        tranning_data=model.training_data or UNSET,
        price=[*_token_prices(model.prices, on), *_pixel_prices(model.prices, on)] or UNSET,
        enabled=enabled,
    )


def _token_prices(prices: Sequence[Price], on: date) -> list[PriceListing]:
    # An empty usage reaches no threshold, so what is found is the plain price.
    taken = price_for(prices, "input_tokens", Usage(), on)
    given = price_for(prices, "output_tokens", Usage(), on)
    named = taken or given
    if named is None:
        return []
    rates = TokenRates(
        input_value=UNSET if taken is None else price_number(taken, UNIT_OF_MEASURE),
        output_value=UNSET if given is None else price_number(given, UNIT_OF_MEASURE),
    )
    return [PriceListing(id=named.id, token=rates)]


def _pixel_prices(prices: Sequence[Price], on: date) -> list[PriceListing]:
    valid: dict[tuple[str, PriceCondition], Price] = {}
    for price in prices:
        if price.unit not in {"images", "image_inputs"} or (price.since is not None and price.since > on):
            continue
        key = (price.unit, price.condition or _PLAIN)
        known = valid.get(key)
        if known is None or (price.since or date.min) > (known.since or date.min):
            valid[key] = price
    return [PriceListing(id=price.id, pixel=_pixel(price)) for price in valid.values()]


def _pixel(price: Price) -> PixelRate:
    condition = price.condition or _PLAIN
    return PixelRate(
        width=UNSET if condition.width is None else condition.width,
        height=UNSET if condition.height is None else condition.height,
        quality=condition.quality or condition.resolution or UNSET,
        value=price_number(price, 1),
    )
