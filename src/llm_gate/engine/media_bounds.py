"""What media may cost before they are made, and what they did cost: by the same drafts as preflight."""

from collections.abc import Mapping
from datetime import date
from math import ceil

from msgspec import Struct, structs

from llm_gate.domain.bounds import cost_of_media, price_range
from llm_gate.domain.media import (
    FaceSwapRequest,
    ImageEditRequest,
    ImageRequest,
    ImageResult,
    MediaRequest,
    MediaResult,
    Medium,
    SpeechRequest,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
    VideoRequest,
    VideoResult,
)
from llm_gate.domain.operations import Count, Draft, exactly
from llm_gate.domain.plans import Plan
from llm_gate.domain.preflight import Asked
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.search import SearchRequest, SearchResult
from llm_gate.domain.search_rules import billed
from llm_gate.domain.usage import Usage
from llm_gate.engine.drafts import draft_of, likely_draft
from llm_gate.engine.estimate import Bound

# Recordings of unknown length: what is usual, and the least that a codec for speech needs for a second.
_USUAL_BYTES_A_SECOND, _LEAST_BYTES_A_SECOND = 16_000, 750


class Priced(Struct, frozen=True, kw_only=True):
    """What something came to: its cost (None: unknown), and how many of what was made, by unit."""

    cost: Cost | None
    units: Mapping[str, int]


def media_draft(request: MediaRequest, target: Target, plan: Plan) -> Draft:
    """Describe a fitted request at a target as preflight would."""
    draft = draft_of(_asked(request), request.operation, target.model, plan)
    if isinstance(request, TranscriptionRequest) and request.duration_s is None:
        return structs.replace(draft, duration_s=_length(request))
    if isinstance(request, SearchRequest):
        most = billed(request, target.model)
        return structs.replace(draft, count=most.requests, pages=most.pages)
    return draft


def _asked(request: MediaRequest) -> Asked:
    match request:
        case ImageRequest() | ImageEditRequest():
            size = (
                None if request.width is None or request.height is None else (request.width, request.height)
            )
            return Asked(
                operation=request.operation,
                count=request.n,
                size=size,
                quality=request.quality,
                resolution=request.resolution,
            )
        case FaceSwapRequest():
            return Asked(operation="face_swap")
        case VideoRequest():
            return Asked(operation="video", duration_s=request.duration_s, resolution=request.resolution)
        case SpeechRequest():
            return Asked(operation="speech", characters=len(request.text))
        case TranscriptionRequest():
            lasts_s = 0 if request.duration_s is None else ceil(request.duration_s)
            return Asked(operation="transcription", duration_s=lasts_s)
        case SearchRequest():
            return Asked(operation="search", quality=request.depth or "basic")


def _length(request: TranscriptionRequest) -> Count:
    size = len(request.audio.data) if isinstance(request.audio, Medium) else 0
    return Count(
        expected=max(1, size // _USUAL_BYTES_A_SECOND), most=max(1, -(-size // _LEAST_BYTES_A_SECOND))
    )


def media_bound(draft: Draft, target: Target, on: date, *, strict: bool) -> Bound:
    """Return what an attempt is held at: the bound that holds where `strict`, else what is likely."""
    prices = target.model.prices
    most = price_range(prices, draft, on)
    likely = price_range(prices, likely_draft(draft), on)
    most_nanos = None if most is None else most.max_nanos
    return Bound(
        target=target,
        input_tokens=0,
        tokens=0,
        cost_nanos=most_nanos if strict else None if likely is None else likely.max_nanos,
        most_tokens=0,
        most_cost_nanos=most_nanos,
    )


def priced_media(draft: Draft, result: MediaResult, target: Target, on: date) -> Priced:
    """Price what was made, at the prices of a day; by the vendor's own counts where it gives them."""
    made = _made(draft, result)
    return priced_draft(made, target, on, _counted(result.usage))


def priced_draft(made: Draft, target: Target, on: date, usage: Usage | None) -> Priced:
    """Price what was made as a draft describes it, which bounds what nobody counted."""
    units = {"images": made.count} if made.operation in {"image", "image_edit", "face_swap"} else {}
    if made.duration_s is not None and made.duration_s.is_exact:
        units["seconds"] = made.duration_s.most
    if made.characters is not None:
        units["characters"] = made.characters
    if made.operation == "search":
        units |= {"requests": made.count} | ({"pages": made.pages} if made.pages else {})
    cost = cost_of_media(target.model.prices, made, on, usage)
    return Priced(cost=cost, units=units)


def _counted(usage: Usage | None) -> Usage | None:
    """Return the vendor's counts; none at all are no counts."""
    return usage if usage is not None and usage.counts else None


def _made(draft: Draft, result: MediaResult) -> Draft:
    """Return the draft as it turned out."""
    match result:
        case ImageResult():
            first = result.pictures[0]
            measured = (first.width, first.height) if first.width and first.height else None
            width, height = draft.size or measured or (None, None)
            return structs.replace(draft, count=len(result.pictures), width=width, height=height)
        case TranscriptionResult():
            # The vendor's own count of seconds is what it bills.
            lasts_s = result.duration_s
            return draft if lasts_s is None else structs.replace(draft, duration_s=exactly(ceil(lasts_s)))
        case SpeechResult():
            lasts_s = result.duration_s
            return draft if lasts_s is None else structs.replace(draft, duration_s=exactly(ceil(lasts_s)))
        case SearchResult():
            return structs.replace(draft, count=result.requests, pages=result.pages)
        case VideoResult():
            return draft
