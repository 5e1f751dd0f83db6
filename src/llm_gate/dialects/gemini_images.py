"""Pictures and edits in Gemini's wire format, and what all its media have in common: the request, and what was made.

Contract: https://ai.google.dev/gemini-api/docs/image-generation, https://ai.google.dev/gemini-api/docs/imagen
"""

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.dialects._gemini_schema import (
    ABSENT,
    ContentPart,
    Count,
    Reply,
    Word,
    error_in_success,
    is_blocked,
    is_present,
    read_finish,
    read_lenient,
    read_replies,
    read_usage,
)
from llm_gate.dialects.gemini_request import JSON_HEADERS, model_url
from llm_gate.domain.catalog import EditTask
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest, ProviderError, excerpt
from llm_gate.domain.media import Given, ImageEditRequest, ImageRequest, ImageResult, Medium, Picture
from llm_gate.domain.media_types import type_of
from llm_gate.domain.provider import Exchanges, Facts, HttpReply, HttpRequest, Send, Target
from llm_gate.domain.results import FinishReason
from llm_gate.domain.usage import Usage, believed

_REFUSED = 400
# Ends that tell of no filter: the model made nothing and does not say why (5 is OTHER).
_UNEXPLAINED: frozenset[Word | None] = frozenset({"OTHER", "IMAGE_OTHER", "NO_IMAGE", 5})
_PICTURE: tuple[Word, Word] = ("IMAGE", 2)
_MODALITIES = ("TEXT", "IMAGE")
_FORM, _PREDICT = "form", "predict"
# Wishes that neither form has a field for, with the caller's name of the field.
_UNNAMED: tuple[tuple[str, str], ...] = (
    ("width", "size"),
    ("quality", "quality"),
    ("style", "style"),
    ("background", "background"),
    ("negative_prompt", "negative_prompt"),
    ("steps", "steps"),
)
# The model knows no tasks, only words.
_TASKS: Mapping[EditTask, str] = {
    "outpaint": "Extend the picture beyond its edges.",
    "erase": "Remove what is described or marked from the picture, and fill its place with what lies around it.",
    "remove_background": "Remove the background of the picture, and put plain white in its place.",
    "replace_background": "Replace the background of the picture.",
    "search_and_replace": "Find in the picture what is described, and replace it.",
    "search_and_recolor": "Find in the picture what is described, and change its colour.",
}
_MASK = "The last picture is a mask: change only what is white in it, and leave all else as it is."


class _ModalityCount(Struct, frozen=True, kw_only=True, rename="camel"):
    modality: Word | None = None
    token_count: Count = 0


class _Details(Struct, frozen=True, kw_only=True, rename="camel"):
    prompt_tokens_details: tuple[_ModalityCount, ...] | None = None
    cache_tokens_details: tuple[_ModalityCount, ...] | None = None
    candidates_tokens_details: tuple[_ModalityCount, ...] | None = None


class _Prediction(Struct, frozen=True, kw_only=True, rename="camel"):
    bytes_base64_encoded: str | None = None
    mime_type: str = ""
    rai_filtered_reason: str | None = None


class _Predictions(Struct, frozen=True, kw_only=True):
    predictions: tuple[_Prediction, ...] | None = None


_details_decoder = msgspec.json.Decoder(_Details)
_predictions_decoder = msgspec.json.Decoder(_Predictions)
_text_decoder = msgspec.json.Decoder(str)


class Made(Struct, frozen=True, kw_only=True):
    """What a model made: the parts of its answer without its thoughts, why it ended, and what it consumed.

    `reason` is None where nothing is said that explains the end; `said` is the vendor's own sentence about it.
    """

    parts: tuple[ContentPart, ...]
    reason: FinishReason | None
    said: str
    usage: Usage | None
    model: str | None
    status: int

    @property
    def text(self) -> str:
        """The text of all parts together."""
        return "".join(part.text or "" for part in self.parts)


def media_request(
    target: Target, parts: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], extra: Mapping[str, Any]
) -> HttpRequest:
    """Build the request for one answer of a model; the catalog's fields are settings, too, `extra` any fields.

    Raises:
        InvalidRequest: the model's name would lead to another address.
    """
    spec = target.model.media
    fields = {name: value for name, value in (spec.fields if spec else {}).items() if name != _FORM}
    body = {
        "contents": [{"role": "user", "parts": list(parts)}],
        "generationConfig": merged(fields, settings),
    }
    return HttpRequest(
        method="POST",
        url=model_url(target, "generateContent"),
        body=msgspec.json.encode(merged(extra, body)),
        headers=JSON_HEADERS,
    )


def merged(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> dict[str, Any]:
    """Join two tables and the tables within them; what is in both is ours."""
    joined = {**theirs, **ours}
    for name, value in ours.items():
        other = theirs.get(name)
        if isinstance(value, Mapping) and isinstance(other, Mapping):
            joined[name] = merged(other, value)
    return joined


def inline(given: Given, param: str) -> dict[str, Any]:
    """Return the part that holds a medium.

    Raises:
        InvalidRequest: it was not fetched.
    """
    medium = medium_of(given, param)
    data = base64.b64encode(medium.data).decode()
    return {"inlineData": {"mimeType": medium.type, "data": data}}


def medium_of(given: Given, param: str) -> Medium:
    """Return a medium that has its bytes.

    Raises:
        InvalidRequest: it was not fetched.
    """
    if not isinstance(given, Medium):
        raise InvalidRequest(f"{param}: must be bytes, not a link", param=param)
    return given


def not_carried(param: str, target: Target) -> InvalidRequest:
    """Make the error for a wish that the vendor has no field for."""
    return InvalidRequest(
        f"{param}: cannot be carried over to {target.name}", param=param, code="unsupported_parameter"
    )


def read_made(reply: HttpReply | None, target: Target, what: str) -> Made:
    """Read an answer; `what` names in errors what it should hold.

    Raises:
        ContentFiltered: the prompt was blocked.
        ProviderError: it is no answer, or carries an error after all.
    """
    reply = _checked(reply, target, what)
    try:
        answers = read_replies(reply.body, target)
    except BadProviderResponse:
        answers = []
    if len(answers) != 1:
        raise bad_response(target, f"holds no {what}", status=reply.status)
    answer, usage = answers[0], _usage(answers[0].usage_metadata)
    if not answer.candidates:
        if is_blocked(answer):
            raise filtered(_block_message(answer), target, is_unbilled=_is_unbilled(usage))
        raise bad_response(target, f"holds no {what}", status=reply.status)
    candidate = answer.candidates[0]
    word = candidate.finish_reason
    message = candidate.finish_message
    said = read_lenient(_text_decoder, message) if is_present(message) else None
    return Made(
        parts=tuple(part for part in candidate.parts if not part.thought),
        reason=None if word in _UNEXPLAINED else read_finish(word, target),
        said=said or str(word or ""),
        usage=usage,
        model=answer.model_version,
        status=reply.status,
    )


def _checked(reply: HttpReply | None, target: Target, what: str) -> HttpReply:
    """Return a reply that does not consist of an error; what the vendor could not do, it does not bill."""
    if reply is None:
        raise bad_response(target, f"holds no {what}")
    error = error_in_success(reply.body, target)
    if error is not None:
        error.is_unbilled = True
        raise error
    return reply


def _is_unbilled(usage: Usage | None) -> bool:
    """Tell whether a refused answer was certainly not billed: nothing was made and counted."""
    return usage is None or not usage.output_tokens


def _block_message(answer: Reply) -> str:
    feedback = read_lenient(msgspec.json.Decoder(dict[str, Any]), answer.prompt_feedback) or {}
    said = feedback.get("blockReasonMessage") or feedback.get("blockReason")
    return str(said or "")


def _usage(raw: Raw) -> Usage | None:
    """Return the counts of an answer, with the pictures among them."""
    usage = read_usage(raw)
    details = read_lenient(_details_decoder, raw) if usage is not None and raw is not ABSENT else None
    if usage is None or details is None:
        return usage
    seen = _pictures(details.prompt_tokens_details) - _pictures(details.cache_tokens_details)
    made = _pictures(details.candidates_tokens_details)
    return believed(structs.replace(usage, image_input_tokens=max(0, seen), image_output_tokens=made))


def _pictures(counts: tuple[_ModalityCount, ...] | None) -> int:
    return sum(item.token_count for item in counts or () if item.modality in _PICTURE)


def filtered(message: str, target: Target, *, is_unbilled: bool) -> ProviderError:
    """Make the error for what the vendor's content policy blocked."""
    failure = VendorFailure(status=_REFUSED, message=message, codes=("content_filter",))
    error = typed_error(failure, target)
    error.is_unbilled = is_unbilled
    return error


def missing(made: Made, what: str, target: Target) -> ProviderError:
    """Return why an answer does not hold what it should: it was filtered, or the model made something else."""
    if made.reason == "content_filter":
        return filtered(made.said, target, is_unbilled=_is_unbilled(made.usage))
    error = bad_response(target, f"holds no {what}", status=made.status)
    text, secret = made.text or made.said, target.deployment.auth.secret
    error.detail = excerpt(text if secret is None else secret.redact(text))
    return error


def unpacked(text: str) -> bytes | None:
    """Return the bytes that base64 stands for; None where it is none, or nothing."""
    try:
        return base64.b64decode(text, validate=True) or None
    except (binascii.Error, ValueError):
        return None


class GeminiImages:
    """Makes a picture from words, or from words and pictures: in an answer of a model, or as a prediction."""

    def run(
        self, request: ImageRequest | ImageEditRequest, target: Target, facts: Facts
    ) -> Exchanges[ImageResult]:
        """Make it.

        Raises:
            InvalidRequest: it asks for what this vendor has no field for.
            ProviderError: the answer holds no picture, or tells of a failure.
        """
        del facts
        for name, param in _UNNAMED:
            if getattr(request, name) is not None:
                raise not_carried(param, target)
        spec = target.model.media
        if spec is not None and spec.fields.get(_FORM) == _PREDICT:
            reply = yield Send(request=_prediction(request, target), is_paid=True)
            return _predicted(reply, target)
        reply = yield Send(request=_answer(request, target), is_paid=True)
        made = read_made(reply, target, "picture")
        pictures = [
            picture
            for part in made.parts
            if part.inline_data is not None
            and (picture := _picture(part.inline_data.data, part.inline_data.mime_type)) is not None
        ]
        if not pictures:
            raise missing(made, "picture", target)
        return ImageResult(pictures=tuple(pictures), usage=made.usage, model=made.model)


def _answer(request: ImageRequest | ImageEditRequest, target: Target) -> HttpRequest:
    """Return the request for a picture in an answer."""
    if request.n > 1:
        raise InvalidRequest(f"n: {target.name} makes one picture at once", param="n")
    if request.guidance_scale is not None:
        raise not_carried("guidance_scale", target)
    config: dict[str, Any] = {"aspectRatio": request.aspect_ratio, "imageSize": request.resolution}
    if request.format is not None:
        config["imageOutputOptions"] = {"mimeType": _type(request.format)}
    config = {name: value for name, value in config.items() if value is not None}
    settings: dict[str, Any] = {"responseModalities": _MODALITIES}
    if config:
        settings["imageConfig"] = config
    if request.seed is not None:
        settings["seed"] = request.seed
    return media_request(target, _parts(request, target), settings, request.extra)


def _parts(request: ImageRequest | ImageEditRequest, target: Target) -> list[dict[str, Any]]:
    """Return the words, then the pictures, then the mask."""
    if isinstance(request, ImageRequest):
        return [{"text": request.prompt}]
    pictures = [inline(image, "image") for image in request.images]
    words = [_TASKS.get(request.task, ""), request.prompt]
    if request.mask is not None:
        spec = target.model.media
        if spec is None or "mask" not in spec.takes:
            raise not_carried("mask", target)
        pictures.append(inline(request.mask, "mask"))
        words.append(_MASK)
    text = "\n".join(filter(None, words))
    if not text:
        raise InvalidRequest("prompt: must say what is to be changed", param="prompt")
    return [{"text": text}, *pictures]


def _type(name: str) -> str:
    return f"image/{'jpeg' if name.lower() == 'jpg' else name.lower()}"


def _picture(data: str, said: str) -> Picture | None:
    """Return a picture from base64; None where it is none."""
    raw = unpacked(data)
    if raw is None:
        return None
    kind = type_of(raw) or said.lower()
    return Picture(medium=Medium(data=raw, type=kind)) if kind.startswith("image/") else None


def _prediction(request: ImageRequest | ImageEditRequest, target: Target) -> HttpRequest:
    """Return the request for pictures as predictions, a form that knows no edits and no seed."""
    if isinstance(request, ImageEditRequest):
        raise not_carried("image", target)
    if request.seed is not None:
        raise not_carried("seed", target)
    said: dict[str, Any] = {
        "sampleCount": request.n,
        "aspectRatio": request.aspect_ratio,
        "guidanceScale": request.guidance_scale,
        "sampleImageSize": request.resolution,
        # Without it, what was filtered is left out in silence.
        "includeRaiReason": True,
    }
    if request.format is not None:
        said["outputOptions"] = {"mimeType": _type(request.format)}
    said = {name: value for name, value in said.items() if value is not None}
    spec = target.model.media
    fields = {name: value for name, value in (spec.fields if spec else {}).items() if name != _FORM}
    body = {
        "instances": [{"prompt": request.prompt}],
        "parameters": merged(request.extra, merged(fields, said)),
    }
    return HttpRequest(
        method="POST",
        url=model_url(target, _PREDICT),
        body=msgspec.json.encode(body),
        headers=JSON_HEADERS,
    )


def _predicted(reply: HttpReply | None, target: Target) -> ImageResult:
    """Read predictions; those that were filtered leave a note beside the others."""
    reply = _checked(reply, target, "picture")
    answer = read_lenient(_predictions_decoder, reply.body) or _Predictions()
    pictures: list[Picture] = []
    reasons: list[str] = []
    for prediction in answer.predictions or ():
        picture = _picture(prediction.bytes_base64_encoded or "", prediction.mime_type)
        if picture is not None:
            pictures.append(picture)
        elif prediction.rai_filtered_reason:
            reasons.append(excerpt(prediction.rai_filtered_reason))
    if not pictures and reasons:
        raise filtered("; ".join(reasons), target, is_unbilled=True)
    if not pictures:
        raise bad_response(target, "holds no picture", status=reply.status)
    notes = tuple(f"a picture was withheld: {reason}" for reason in reasons)
    return ImageResult(pictures=tuple(pictures), notes=notes)
