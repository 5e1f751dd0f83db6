"""Which of a model's prices fit a media operation, how much of their unit it has, and what that amounts to."""

from collections.abc import Iterable, Sequence
from datetime import date
from fractions import Fraction

from llm_gate.domain.operations import Count, Draft, exactly
from llm_gate.domain.pricing import Price, PriceCondition, Unit

_ANY = PriceCondition()
_MEGAPIXEL = 1_000_000

_Key = tuple[tuple[int, int] | None, str | None, str | None]


def fitting_prices(prices: Iterable[Price], unit: Unit, draft: Draft, on: date) -> tuple[Price, ...]:
    """Return the prices of a unit that may apply on a day, in their order.

    There are several where the draft leaves open what their conditions ask. A price gives way to a narrower one that
    applies for certain. Sizes fit in either orientation, the written one first; words fit in any case.
    """
    valid = _valid(prices, unit, on)
    keys = [_key(price.condition or _ANY) for price in valid]
    said = _said(draft, [size for size, _, _ in keys])
    fits = [
        (price, key)
        for price, key in zip(valid, keys, strict=True)
        if all(wanted is None or given in {None, wanted} for wanted, given in zip(key, said, strict=True))
    ]
    return tuple(price for price, key in fits if not any(_hides(other, key, said) for _, other in fits))


def quantity_of(unit: Unit, draft: Draft) -> Count | None:
    """Return how much of a unit one item has; None where the draft does not say."""
    match unit:
        case "images" | "requests":
            return exactly(1)
        case "megapixels":
            # Vendors that bill by the megapixel round each picture up.
            return None if draft.size is None else exactly(-(-draft.size[0] * draft.size[1] // _MEGAPIXEL))
        case "seconds":
            return draft.duration_s
        case "characters":
            return None if draft.characters is None else exactly(draft.characters)
        case "pages":
            return None if draft.pages is None else exactly(draft.pages)
        case "training_tokens":
            return draft.input_tokens
        case _:
            return None


def amount_of(price: Price, quantity: int, items: int) -> Fraction:
    """Return what `items` of `quantity` units each cost, exactly, in nano-dollars."""
    share = Fraction(price.nanos * quantity, price.per)
    return items * (share if price.minimum_nanos is None else max(share, price.minimum_nanos))


def _valid(prices: Iterable[Price], unit: Unit, on: date) -> Sequence[Price]:
    """Return the prices of a unit that have begun, of each condition the latest."""
    latest: dict[PriceCondition, Price] = {}
    for price in prices:
        if price.unit != unit or (price.since is not None and price.since > on):
            continue
        condition = price.condition or _ANY
        known = latest.get(condition)
        if known is None or (price.since or date.min) >= (known.since or date.min):
            latest[condition] = price
    return tuple(latest.values())


def _key(condition: PriceCondition) -> _Key:
    width, height = condition.width, condition.height
    size = None if width is None or height is None else (width, height)
    return size, _plain(condition.quality), _plain(condition.resolution)


def _said(draft: Draft, priced: Sequence[tuple[int, int] | None]) -> _Key:
    """Return what the draft says of all that a condition may ask."""
    size = draft.size
    if size is not None and size not in priced and size[::-1] in priced:
        size = size[::-1]
    return size, _plain(draft.quality), _plain(draft.resolution)


def _hides(other: _Key, key: _Key, said: _Key) -> bool:
    """Tell whether a price applies for certain wherever a broader one does."""
    return other != key and all(
        wanted == theirs or (wanted is None and theirs == given)
        for wanted, theirs, given in zip(key, other, said, strict=True)
    )


def _plain(word: str | None) -> str | None:
    return None if word is None else word.casefold()
