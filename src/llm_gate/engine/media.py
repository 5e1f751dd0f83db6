"""Pictures, edits, face swaps, voices and transcripts: the one pipeline, for what vendors answer in one go.

Each target gets the request as it takes it (`media_rules.fit`); one that cannot do what is asked is left out. What was
made is measured by its bytes before anybody is told that it is what they wanted.
"""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from datetime import date
from typing import Any, TypeVar

from msgspec import Struct, structs

from llm_gate.domain.access import CallContext
from llm_gate.domain.blobs import Fetcher, FetchFailed
from llm_gate.domain.catalog import Operation
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest, TooLarge
from llm_gate.domain.media import (
    Given,
    ImageResult,
    Link,
    MediaRequest,
    MediaResult,
    Medium,
    SpeechResult,
    TranscriptionRequest,
    TranscriptionResult,
)
from llm_gate.domain.media_rules import Fitted, fit
from llm_gate.domain.operations import Draft
from llm_gate.domain.ports import Measures
from llm_gate.domain.provider import MediaCodec, Target
from llm_gate.domain.search import SearchRequest
from llm_gate.engine.admission import Booking
from llm_gate.engine.answer import Admitted, Answer, Attempted
from llm_gate.engine.attempts import Call
from llm_gate.engine.choice import Route
from llm_gate.engine.estimate import Bound
from llm_gate.engine.exchanges import Traced, framed
from llm_gate.engine.exchanging import KeptReplies, Road, drive, facts
from llm_gate.engine.fleet import Turn
from llm_gate.engine.holds import Holds
from llm_gate.engine.media_bounds import media_bound, media_draft, priced_media
from llm_gate.engine.pipeline import Pipeline
from llm_gate.engine.working import Working

R = TypeVar("R", bound=MediaRequest)

MOST_INPUT_BYTES = 64 * 1024 * 1024
"""The largest medium that is taken from an address a caller names."""

FETCH_INPUT_S = 60.0
"""How long fetching it may take, in seconds."""

_MAX_INPUTS = 16
_PICTURES: frozenset[Operation] = frozenset({"image_edit", "face_swap", "video"})


class Fitting(Struct, frozen=True, kw_only=True):
    """One target's own form of a request, and how it is priced."""

    request: Any
    notes: tuple[str, ...]
    draft: Draft


class Offered(Struct, frozen=True, kw_only=True):
    """What may be tried for a request: the fittings by target, and their bounds in the order of trying."""

    route: Route
    holds: Holds
    fittings: Mapping[int, Fitting]
    bounds: Sequence[Bound]


class MediaDesk:
    """Makes media. `fetcher` gets what stands at addresses, `measures` looks into bytes."""

    def __init__(self, pipeline: Pipeline, *, fetcher: Fetcher, measures: Measures) -> None:
        self.pipeline = pipeline
        self.fetcher = fetcher
        self.measures = measures
        self._kept = KeptReplies()

    async def make(
        self, working: Working, request: MediaRequest, context: CallContext
    ) -> Answer[MediaResult]:
        """Carry out a request for what is answered in one go; raises what every call of the gate raises."""
        operation = request.operation
        with Traced(context, operation, request.model) as traced:
            answer = await self._make(working, request, traced)
            traced.span.used(answer.target, answer.usage, answer.result.model)
            return answer

    async def _make(self, working: Working, request: Any, context: CallContext) -> Answer[MediaResult]:
        operation: Operation = request.operation
        request = await self.prepared(working, request, context)
        offered = await self.offered(working, request, context)
        usable, tried = self.pipeline.choose(offered.route, offered.bounds, offered.holds.standing, context)
        booking = await self.pipeline.admission.book(
            context, operation, offered.holds, usable, count=request.n
        )
        admitted = Admitted(request=request, bounds=usable, holds=offered.holds, booking=booking, tried=tried)

        def calls(booking: Booking) -> Call[Attempted[MediaResult]]:
            def once(target: Target, turn: Turn) -> Awaitable[Attempted[MediaResult]]:
                fitting, road = offered.fittings[id(target)], self.road(working, context, target, turn.span)
                return self._once(fitting, booking, road, turn, context.received_at.date())

            return once

        answer = await self.pipeline.answer(working, admitted, calls, context)
        if working.guards is not None and isinstance(answer.result, TranscriptionResult):
            texts = [answer.result.text]
            await working.guards.check_output(
                texts, request.model, operation, context, answer.target.provider
            )
        return answer

    async def prepared(self, working: Working, request: R, context: CallContext) -> R:
        """Return the request as it was found good by the guards, with all of its media at hand and measured.

        Raises:
            InvalidRequest: a medium cannot be fetched, or is not what it should be.
            GuardRefused: a guard refuses it.
        """
        if working.guards is not None:
            await working.guards.check_input(request, request.operation, context)
        given = media_of(request)
        if len(given) > _MAX_INPUTS:
            raise InvalidRequest(f"image: at most {_MAX_INPUTS} media can be given", param="image")
        media = await asyncio.gather(*(self._medium(medium, name) for name, medium in given))
        request = _with_media(request, media)
        if isinstance(request, TranscriptionRequest) and isinstance(request.audio, Medium):
            lasts_s = await self.measures.sound(request.audio.data)
            request = structs.replace(request, duration_s=lasts_s)
        elif request.operation in _PICTURES:
            await asyncio.gather(
                *(
                    self._check_picture(medium, name)
                    for (name, _), medium in zip(given, media, strict=True)
                    if name != "audio"
                )
            )
        return request

    async def _medium(self, given: Given, name: str) -> Medium:
        if isinstance(given, Medium):
            return given
        try:
            return await self.fetcher.fetch(given.url, most_bytes=MOST_INPUT_BYTES, within_s=FETCH_INPUT_S)
        except FetchFailed as error:
            if error.reason == "too_large":
                raise TooLarge(f"{name}: {error.message}") from None
            raise InvalidRequest(f"{name}: {error.message}", param=name, code="media_not_fetched") from None

    async def _check_picture(self, medium: Medium, name: str) -> None:
        if await self.measures.picture(medium.data) is None:
            raise InvalidRequest(
                f"{name}: not a whole picture in a form that is known here, or beyond all measure",
                param=name,
                code="invalid_image",
            )

    async def offered(self, working: Working, request: Any, context: CallContext) -> Offered:
        """Return what may be tried for a prepared request, and what it may cost.

        Raises:
            CallerError: the name leads nowhere, the plan allows none of it, or nobody there can do what is asked.
            ProviderUnavailable: everything it leads to is known to be away.
        """
        operation: Operation = request.operation
        kind = request.kind if isinstance(request, SearchRequest) else None
        holds, route = await self.pipeline.routed(working, operation, request, context, kind=kind)
        standing = holds.standing
        is_strict = standing.is_strict and standing.is_capped
        on = context.received_at.date()
        fittings: dict[int, Fitting] = {}
        bounds: list[Bound] = []
        refusals: list[InvalidRequest] = []
        for candidate in route.candidates:
            target = candidate.target
            try:
                if is_strict and request.extra:
                    raise _unbounded(request)
                fitted = _fitted(request, target)
            except InvalidRequest as refusal:
                refusals.append(refusal)
                continue
            draft = media_draft(fitted.request, target, standing.plan)
            fittings[id(target)] = Fitting(request=fitted.request, notes=fitted.notes, draft=draft)
            bounds.append(media_bound(draft, target, on, strict=is_strict))
        if not bounds:
            raise refusals[0]
        return Offered(route=route, holds=holds, fittings=fittings, bounds=bounds)

    def road(self, working: Working, context: CallContext | None, target: Target, span: Any) -> Road:
        """Return what exchanges with a target are made over."""
        return Road(
            transport=working.transport,
            fetcher=self.fetcher,
            target=target,
            instance_id=self.pipeline.instance_id,
            span=span,
            context=context,
            kept=self._kept,
        )

    async def _once(
        self, fitting: Fitting, booking: Booking, road: Road, turn: Turn, on: date
    ) -> Attempted[MediaResult]:
        request, target = fitting.request, road.target
        codec: MediaCodec = target.deployment.codecs.media[request.operation]
        async with framed(booking, target):
            result = await drive(codec.run(request, target, facts()), road)
            result = await self.measured(result, target)
        if isinstance(result, TranscriptionResult) and result.duration_s is None:
            result = structs.replace(result, duration_s=request.duration_s)
        priced = priced_media(fitting.draft, result, target, on)
        booking.answered(result.usage, priced.cost, priced.units)
        turn.used(result.usage, result.model)
        if fitting.notes:
            result = structs.replace(result, notes=(*fitting.notes, *result.notes))
        return Attempted(
            result=result,
            usages=(result.usage,),
            costs=(priced.cost,),
            dropped=(),
            shown_headers={},
            booking=booking,
        )

    async def measured(self, result: MediaResult, target: Target) -> MediaResult:
        """Return the result with what its bytes say.

        Raises:
            BadProviderResponse: a picture is none.
        """
        if isinstance(result, SpeechResult):
            if result.duration_s is not None:
                return result
            return structs.replace(result, duration_s=await self.measures.sound(result.audio.data))
        if not isinstance(result, ImageResult):
            return result
        pictures = []
        for picture in result.pictures:
            found = await self.measures.picture(picture.medium.data)
            if found is None:
                error = BadProviderResponse(
                    f"provider {target.provider!r} gave something that is not a whole picture",
                    provider=target.provider,
                    model=target.wire_model,
                )
                error.may_repeat = False
                raise error
            medium = structs.replace(picture.medium, type=found.type)
            pictures.append(structs.replace(picture, medium=medium, width=found.width, height=found.height))
        return structs.replace(result, pictures=tuple(pictures))


def _fitted(request: MediaRequest, target: Target) -> Fitted:
    if not target.deployment.codecs.does(request.operation):
        raise InvalidRequest(f"provider {target.provider!r} offers no {request.operation}", param="model")
    return fit(request, target.model)


def _unbounded(request: MediaRequest) -> InvalidRequest:
    """Refuse vendors' own fields for a caller whose plan wants every call bounded: they may change the price."""
    name = min(request.extra)
    return InvalidRequest(
        f"{name}: what this costs cannot be bounded, which the caller's plan requires",
        param=name,
        code="not_bounded",
    )


def media_of(request: MediaRequest) -> list[tuple[str, Given]]:
    """Return the media of a request, each with the name of its field."""
    found: list[tuple[str, Given]] = []
    for name in ("images", "image", "mask", "face", "audio"):
        value = getattr(request, name, None)
        if isinstance(value, Medium | Link):
            found.append((name, value))
        elif isinstance(value, tuple):
            found += [("image", each) for each in value]
    return found


def _with_media(request: R, media: Sequence[Medium]) -> R:
    """Return the request with its media in place of what was given, in the order of `media_of`."""
    left = list(media)
    changed: dict[str, Any] = {}
    for name in ("images", "image", "mask", "face", "audio"):
        value = getattr(request, name, None)
        if isinstance(value, Medium | Link):
            changed[name] = left.pop(0)
        elif isinstance(value, tuple):
            changed[name] = tuple(left.pop(0) for _ in value)
    return structs.replace(request, **changed) if changed else request
