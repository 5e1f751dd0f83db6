"""Films: handed in, asked after, fetched. The vendor offers no way to call one off."""

from collections.abc import Mapping
from typing import Any

from llm_gate.dialects._failures import bad_response
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Medium, VideoRequest
from llm_gate.domain.provider import Exchanges, Facts, JobView, Target, Ticket
from llm_gate.providers.wavespeed.tasks import (
    accepted,
    data_uri,
    failure_of,
    fetched,
    look_at,
    merged,
    read_look,
    received,
    submission,
)

MOST_IMAGE_BYTES, MOST_AUDIO_BYTES = 10 * 1024 * 1024, 15 * 1024 * 1024
"""How large a picture or a recording may be that goes with the prompt."""


class VideoJobs:
    """Makes films."""

    look_every_s = 2.0

    def submit(self, request: VideoRequest, target: Target, _facts: Facts) -> Exchanges[Ticket]:
        """Hand the job in; see JobCodec."""
        if not request.prompt.strip() and request.image is None:
            raise InvalidRequest("the prompt is empty", param="prompt")
        payload = {
            "prompt": request.prompt or None,
            "image": _bounded(request.image, "image", MOST_IMAGE_BYTES),
            "audio": _bounded(request.audio, "audio", MOST_AUDIO_BYTES),
            "duration": request.duration_s,
            **_shape(request, target),
            "negative_prompt": request.negative_prompt,
            "seed": request.seed,
            "guidance_scale": request.guidance_scale,
            "num_inference_steps": request.steps,
            "enable_prompt_expansion": request.prompt_expansion,
            "generate_audio": request.generate_audio,
        }
        spec = target.model.media
        paths: Mapping[str, str] = {} if spec is None else spec.paths
        path = paths.get("image", target.wire_model) if request.image is not None else target.wire_model
        reply = yield submission(path, merged(payload, request, target), target)
        task, known = accepted(reply, target)
        if (error := failure_of(task, known, target)) is not None:
            raise error
        if task.id is None:
            raise bad_response(target, "names no task", status=known.status)
        return Ticket(id=task.id)

    def look(self, ticket: Ticket, target: Target, _facts: Facts) -> Exchanges[JobView]:
        """Ask how it stands; see JobCodec."""
        reply = received((yield look_at(ticket.id, target)), target)
        task = read_look(reply, ticket.id, target)
        if (error := failure_of(task, reply, target)) is not None:
            return JobView(status="cancelled" if task.state == "cancelled" else "failed", error=error)
        return JobView(status=task.state, data={"url": task.outputs[0]} if task.state == "succeeded" else {})

    def collect(self, _ticket: Ticket, view: JobView, target: Target, _facts: Facts) -> Exchanges[Medium]:
        """Fetch the film; see JobCodec."""
        return (yield from fetched(view.data["url"], target, kind="video", usual="video/mp4"))

    def cancel(self, _ticket: Ticket, _target: Target, _facts: Facts) -> Exchanges[bool] | None:
        """Return None: the vendor offers no way."""
        return None


def _bounded(given: Any, name: str, most_bytes: int) -> str | None:
    if given is None:
        return None
    if isinstance(given, Medium) and len(given.data) > most_bytes:
        raise InvalidRequest(
            f"{name}: expected at most {most_bytes} bytes, not {len(given.data)}", param=name
        )
    return data_uri(given)


def _shape(request: VideoRequest, target: Target) -> dict[str, Any]:
    """Return the size of the film where the model counts pixels, else its resolution and ratio.

    A film that begins with a picture has its ratio from there.
    """
    spec = target.model.media
    if spec is not None and request.image is not None and request.aspect_ratio is not None:
        raise InvalidRequest("aspect_ratio: the film has that of its picture", param="aspect_ratio")
    if request.width is not None and request.height is not None:
        return {"size": f"{request.width}*{request.height}"}
    pixels = None if spec is None or request.resolution is None else spec.pixels.get(request.resolution)
    if pixels is None or request.image is not None:
        return {"resolution": request.resolution, "aspect_ratio": request.aspect_ratio}
    across, _, down = pixels.partition("x")
    return {"size": f"{down}*{across}" if request.aspect_ratio == "9:16" else f"{across}*{down}"}
