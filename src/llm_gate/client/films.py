"""Films for callers of the library: handed in, followed to their end, called off by whoever leaves, and priced."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil
from time import monotonic
from typing import Any

from msgspec import Struct

from llm_gate.bootstrap import Gateway
from llm_gate.client.answers import dollars
from llm_gate.client.calls import caller_of, told_plainly
from llm_gate.client.contracts import (
    ProgressCallback,
    VideoFailed,
    VideoGenerationOptions,
    VideoGenerationResult,
    VideoNotReady,
)
from llm_gate.client.media import MediaCall
from llm_gate.client.media_requests import (
    GivenMedium,
    VideoWish,
    medium_of,
    text_said,
    video_said,
)
from llm_gate.domain import media
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import GateError
from llm_gate.domain.jobs import TERMINAL, Job
from llm_gate.domain.operations import parse_size
from llm_gate.domain.plans import Plan
from llm_gate.domain.preflight import Asked
from llm_gate.engine.drafts import estimate
from llm_gate.engine.jobs import SUBMITTING

_LOOK_S = 0.2
_DOWNLOADING, _DONE = 90.0, 100.0
_ANY_PLAN = Plan(name="any", label="any")


class Following(Struct, frozen=True, kw_only=True):
    """How a film is waited for: who is told how far it is, and how long, in seconds (None: to its end)."""

    callback: ProgressCallback | None = None
    timeout_s: float | None = None


async def video(
    call: MediaCall,
    prompt: str | VideoGenerationOptions,
    image: GivenMedium | None,
    audio: GivenMedium | None,
    callback: ProgressCallback | None,
) -> VideoGenerationResult:
    """Make a film; raises what `LLMGate.video` raises."""
    usual: Mapping[str, Any] = {}
    began_with: object = image
    if isinstance(prompt, VideoGenerationOptions):
        usual, its_image = video_said(prompt)
        began_with = its_image if image is None else image
        audio = prompt.audio_base64 if audio is None else audio
        prompt = prompt.prompt
    fields, context = call.read(VideoWish, usual)
    request = media.VideoRequest(
        prompt=text_said(prompt, "prompt"),
        image=None if began_with is None else await medium_of(began_with, "image"),
        audio=None if audio is None else await medium_of(audio, "audio"),
        **fields,
    )
    began_s = monotonic()
    if callback is not None:
        callback(SUBMITTING, "submitting")
    job = await _submitted(call, request, context)
    left_s = None if context.timeout_s is None else context.timeout_s - (monotonic() - began_s)
    return await _ended(call, job, context.caller, Following(callback=callback, timeout_s=left_s))


async def _submitted(call: MediaCall, request: media.VideoRequest, context: CallContext) -> Job:
    """Hand a film in. Whoever leaves meanwhile still waits for that, to call it off: it would go on by itself."""
    submitting = asyncio.ensure_future(call.gateway.gate.submit(request, context))
    with told_plainly():
        try:
            return await asyncio.shield(submitting)
        except asyncio.CancelledError:
            (job,) = await asyncio.gather(submitting, return_exceptions=True)
            if isinstance(job, Job):
                await _call_off(call.gateway, job, context.caller)
            raise


async def resume_video(call: MediaCall, job_id: str, following: Following) -> VideoGenerationResult:
    """Wait for a film that was handed in before; raises what `LLMGate.resume_video` raises."""
    caller = caller_of(call.user_id)
    if following.timeout_s is not None and not following.timeout_s > 0:
        raise ValueError("timeout_s: must be more than 0")
    job = await call.gateway.gate.jobs.find(job_id, caller)
    return await _ended(call, job, caller, following)


async def _ended(call: MediaCall, job: Job, caller: Caller, following: Following) -> VideoGenerationResult:
    """Follow a job to its end. Whoever leaves calls it off; whoever has waited long enough does not."""
    is_left = True
    try:
        result = await _followed(call, job, caller, following)
        is_left = False
    except GateError:
        is_left = False
        raise
    finally:
        if is_left:
            await _call_off(call.gateway, job, caller)
    return result


async def _call_off(gateway: Gateway, job: Job, caller: Caller) -> None:
    try:
        await gateway.gate.jobs.cancel(job.id, caller)
    except GateError:
        # It has ended meanwhile, or nobody can be told now; why the caller left matters more.
        return


async def _followed(call: MediaCall, job: Job, caller: Caller, following: Following) -> VideoGenerationResult:
    ends_s = None if following.timeout_s is None else monotonic() + following.timeout_s
    told: tuple[float, str] | None = None
    while job.status not in TERMINAL:
        now = (min(job.progress, _DOWNLOADING), job.message)
        if following.callback is not None and now != told:
            following.callback(*now)
            told = now
        if ends_s is not None and monotonic() >= ends_s:
            raise VideoNotReady(
                f"the film is not ready after {following.timeout_s:.0f} s; job {job.id} goes on",
                job_id=job.id,
            )
        await asyncio.sleep(_LOOK_S)
        job = call.gateway.gate.known_job(job.id) or await call.gateway.gate.jobs.find(job.id, caller)
    if job.status != "succeeded" or job.made is None:
        message = job.error_message or f"the job ended as {job.status}: {job.message}"
        raise VideoFailed(message, job_id=job.id, code=job.error_code or f"video_{job.status}")
    if following.callback is not None and (told is None or told[0] < _DOWNLOADING):
        following.callback(_DOWNLOADING, "downloading")
    kept = await call.gateway.keeping.read(job.made.blob)
    if kept is None:
        raise VideoFailed("the film is not kept any more", job_id=job.id, code="blob_not_found")
    if following.callback is not None:
        following.callback(_DONE, "done")
    return _film(call, job, kept[1])


def _film(call: MediaCall, job: Job, data: bytes) -> VideoGenerationResult:
    said = call.own.film(job.provider, job.ticket)
    asked, made = job.asked, job.made
    resolution = str(asked.get("resolution") or getattr(said, "resolution", None) or "")
    width, height = _size(call.gateway, job, resolution, said)
    lasts_s = None if made is None else made.duration_s
    cost = dollars(job.charged_nanos)
    told = getattr(said, "metadata", None)
    return VideoGenerationResult(
        video_bytes=data,
        prompt=str(asked.get("prompt", "")),
        duration=float(lasts_s or getattr(said, "duration", None) or asked.get("duration_s") or 0),
        model_name=job.model,
        cost=float(cost or 0),
        provider=job.provider,
        resolution=resolution or (f"{width}x{height}" if width else ""),
        width=width,
        height=height,
        metadata={
            **(told if isinstance(told, Mapping) else {}),
            "job_id": job.id,
            "media_type": None if made is None else made.type,
            "cost_usd": cost,
        },
        source_video_url=getattr(said, "source_video_url", None),
        prediction_id=getattr(said, "prediction_id", None) or job.ticket or None,
    )


def _size(gateway: Gateway, job: Job, resolution: str, said: VideoGenerationResult | None) -> tuple[int, int]:
    """Return width and height as the bytes tell, or what was asked, or what the model means by a resolution."""
    if job.made is not None and job.made.width and job.made.height:
        return job.made.width, job.made.height
    width, height = getattr(said, "width", None), getattr(said, "height", None)
    if isinstance(width, int) and isinstance(height, int) and width and height:
        return width, height
    if "width" in job.asked and "height" in job.asked:
        return int(job.asked["width"]), int(job.asked["height"])
    entry = gateway.directory.catalog.providers.get(job.provider)
    model = None if entry is None else entry.models.get(job.model)
    pixels = None if model is None or model.media is None else model.media.pixels.get(resolution)
    size = (None if pixels is None else parse_size(pixels)) or (0, 0)
    is_upright = job.asked.get("aspect_ratio") == "9:16"
    return (size[1], size[0]) if is_upright else size


def calculate_cost(
    gateway: Gateway, model: str, resolution: str | None, duration: float | None
) -> float | None:
    """Return what a film costs, in dollars; raises what `LLMGate.calculate_cost` raises."""
    if duration is not None and not duration > 0:
        raise ValueError("duration: must be more than 0")
    lasts_s = None if duration is None else ceil(duration)
    for each in dict.fromkeys((resolution, None)):
        # A resolution that has no price of its own costs what the model's usual one does.
        asked = Asked(operation="video", model=model or None, resolution=each, duration_s=lasts_s)
        found = estimate(asked, gateway.directory, _ANY_PLAN, datetime.now(UTC).date())
        if found.cost is not None:
            return float(dollars(found.cost.expected_nanos) or 0)
    return None
