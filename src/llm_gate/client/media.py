"""Pictures, voices and transcripts for callers of the library: asked for, and given as plain values."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from llm_gate.bootstrap import Gateway
from llm_gate.client.answers import dollars
from llm_gate.client.calls import caller_of, context_of, told_plainly
from llm_gate.client.contracts import (
    AudioGenerationResult,
    FaceSwapOptions,
    ImageEditOptions,
    ImageGenerationOptions,
    ImageGenerationResult,
    TranscriptionResult,
)
from llm_gate.client.media_requests import (
    FaceSwapWish,
    GivenMedium,
    ImageEditWish,
    ImageWish,
    SpeechWish,
    TranscriptionWish,
    checked,
    edit_said,
    fields_of,
    image_said,
    medium_of,
    swap_said,
    text_said,
)
from llm_gate.client.own_media import SAID, OwnMedia
from llm_gate.domain import media
from llm_gate.domain.access import CallContext
from llm_gate.domain.errors import GateFault, InvalidRequest
from llm_gate.domain.plans import Plan
from llm_gate.engine.answer import Answer

R = TypeVar("R", bound=media.MediaResult)

_MOST_PICTURES = 10
_LOOK_S = 0.2
_DOWNLOADING, _DONE = 90.0, 100.0
_ANY_PLAN = Plan(name="any", label="any")


class MediaCall(Struct, frozen=True, kw_only=True):
    """A call on its way: where, for whom, from which method, and the options beside what is asked."""

    gateway: Gateway
    own: OwnMedia
    user_id: str
    endpoint: str
    options: Mapping[str, Any] = {}

    def read(self, wish: type, usual: Mapping[str, Any]) -> tuple[dict[str, Any], CallContext]:
        """Return the fields that the options say, over those of an options object, and the frame of the call.

        Raises:
            RuntimeError: there is no user id to count the call for.
            TypeError: there is an option of no such name.
            InvalidRequest: a value is not what it should be.
        """
        said = checked({**usual, **self.options}, wish)
        context = context_of(
            caller_of(self.user_id),
            self.endpoint,
            fallbacks=said.get("fallbacks", ()),
            timeout_s=said.get("timeout_s"),
        )
        return fields_of(said), context


async def _made(
    call: MediaCall, request: media.MediaRequest, context: CallContext, kind: type[R]
) -> tuple[Answer[media.MediaResult], R]:
    """Return an answer, and what is in it as the kind that its request makes."""
    with told_plainly():
        answer = await call.gateway.gate.make(request, context)
    if not isinstance(answer.result, kind):
        raise GateFault(f"{request.operation}: a {type(answer.result).__name__} came of it")
    return answer, answer.result


def _facts(answer: Answer[media.MediaResult], **more: object) -> dict[str, Any]:
    return {
        "cost_usd": dollars(None if answer.cost is None else answer.cost.nanos),
        "attempts": answer.attempts,
        "notes": list(answer.result.notes),
        **more,
    }


async def _pictures(
    call: MediaCall, request: media.MediaRequest, context: CallContext
) -> list[ImageGenerationResult]:
    said: dict[str, ImageGenerationResult] = {}
    token = SAID.set(said)
    try:
        answer, made = await _made(call, request, context, media.ImageResult)
    finally:
        SAID.reset(token)
    return [_picture(answer, each, said.get(each.medium.name or "")) for each in made.pictures]


def _picture(
    answer: Answer[media.MediaResult], picture: media.Picture, own: ImageGenerationResult | None
) -> ImageGenerationResult:
    told = getattr(own, "metadata", None)
    return ImageGenerationResult(
        image_bytes=picture.medium.data,
        width=picture.width,
        height=picture.height,
        provider=answer.target.provider,
        model=answer.target.model.name,
        seed=picture.seed,
        metadata={
            **(told if isinstance(told, Mapping) else {}),
            **_facts(answer, media_type=picture.medium.type, revised_prompt=picture.revised_prompt),
        },
    )


async def images(
    call: MediaCall, prompt: str | ImageGenerationOptions, n: object
) -> list[ImageGenerationResult]:
    """Make pictures; raises what `LLMGate.images` raises."""
    usual: Mapping[str, Any] = {}
    if isinstance(prompt, ImageGenerationOptions):
        usual, prompt = image_said(prompt), prompt.prompt
    fields, context = call.read(ImageWish, usual)
    if isinstance(n, bool) or not isinstance(n, int) or not 1 <= n <= _MOST_PICTURES:
        raise InvalidRequest(f"n: must be a number from 1 to {_MOST_PICTURES}", param="n")
    request = media.ImageRequest(prompt=text_said(prompt, "prompt"), n=n, **fields)
    return await _pictures(call, request, context)


async def edit_image(
    call: MediaCall,
    image: GivenMedium | Sequence[GivenMedium] | ImageEditOptions,
    prompt: str,
    mask: GivenMedium | None,
) -> ImageGenerationResult:
    """Change a picture; raises what `LLMGate.edit_image` raises."""
    usual: Mapping[str, Any] = {}
    if isinstance(image, ImageEditOptions):
        usual, prompt = edit_said(image), prompt or image.prompt
        mask, image = image.mask_base64 if mask is None else mask, image.image_base64
    fields, context = call.read(ImageEditWish, usual)
    several = image if isinstance(image, list | tuple) else (image,)
    if not several:
        raise InvalidRequest("image: there must be at least one", param="image")
    request = media.ImageEditRequest(
        images=tuple([await medium_of(each, "image") for each in several]),
        prompt=text_said(prompt, "prompt", may_be_empty=True),
        mask=None if mask is None else await medium_of(mask, "mask"),
        **fields,
    )
    return (await _pictures(call, request, context))[0]


async def swap_face(
    call: MediaCall, image: GivenMedium | FaceSwapOptions, face: GivenMedium | None
) -> ImageGenerationResult:
    """Put a face into a picture; raises what `LLMGate.swap_face` raises."""
    usual: Mapping[str, Any] = {}
    if isinstance(image, FaceSwapOptions):
        usual = swap_said(image)
        face, image = image.face_image_base64 if face is None else face, image.base_image_base64
    fields, context = call.read(FaceSwapWish, usual)
    if face is None:
        raise InvalidRequest("face: there must be a picture of the face", param="face")
    request = media.FaceSwapRequest(
        image=await medium_of(image, "image"), face=await medium_of(face, "face"), **fields
    )
    return (await _pictures(call, request, context))[0]


async def speech(call: MediaCall, text: str) -> AudioGenerationResult:
    """Read a text out; raises what `LLMGate.speech` raises."""
    fields, context = call.read(SpeechWish, {})
    request = media.SpeechRequest(text=text_said(text, "text"), **fields)
    answer, made = await _made(call, request, context, media.SpeechResult)
    spec = answer.target.model.media
    usual = "" if spec is None else next(iter(spec.voices), "")
    return AudioGenerationResult(
        audio_bytes=made.audio.data,
        provider=answer.target.provider,
        model=answer.target.model.name,
        voice_id=request.voice or usual,
        text_length=len(text),
        file_size=len(made.audio.data),
        metadata=_facts(answer, media_type=made.audio.type, duration_s=made.duration_s),
    )


async def transcribe(call: MediaCall, audio: GivenMedium) -> TranscriptionResult:
    """Write a recording down; raises what `LLMGate.transcribe` raises."""
    fields, context = call.read(TranscriptionWish, {})
    request = media.TranscriptionRequest(audio=await medium_of(audio, "audio"), **fields)
    answer, made = await _made(call, request, context, media.TranscriptionResult)
    return TranscriptionResult(
        text=made.text,
        provider=answer.target.provider,
        model=answer.target.model.name,
        language=made.language,
        duration=made.duration_s,
        segments=made.segments,
        words=made.words,
        metadata=_facts(answer),
    )
