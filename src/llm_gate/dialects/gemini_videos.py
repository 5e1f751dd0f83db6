"""Films in Gemini's wire format: a long operation is handed in, looked at until it is done, and its film fetched.

Contract: https://ai.google.dev/gemini-api/docs/video
"""

import base64
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._failures import VendorFailure, bad_response, typed_error
from llm_gate.dialects._gemini_schema import ABSENT, error_in_success, is_present, read_lenient
from llm_gate.dialects.gemini_images import filtered, medium_of, merged, not_carried
from llm_gate.dialects.gemini_request import JSON_HEADERS, model_url
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.media import Medium, VideoRequest
from llm_gate.domain.media_types import type_of
from llm_gate.domain.provider import (
    Exchanges,
    Facts,
    Fetch,
    HttpReply,
    HttpRequest,
    JobView,
    Send,
    Target,
    Ticket,
)

_URI = "uri"
_FIRST_FAILURE_STATUS = 300
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_BROKEN = 502
# What the numbers of gRPC, which operations fail with, are in HTTP:
# https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto
_STATUSES: Mapping[int, int] = {
    1: 500, 2: 500, 3: 400, 4: 504, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 11: 400, 12: 501, 13: 500,
    14: 503, 15: 500, 16: 401,
}  # fmt: skip
_CALLER_STATUSES, _LAST_STATUS = 400, 599
# A filter that stops a film before it is made has no code of its own.
_FILTER_MARKS = ("usage guidelines", "responsible ai", "safety", "content polic")
# Names that may be long, but lead nowhere else.
_STEP = r"(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]{1,200}"
_OPERATION = re.compile(rf"{_STEP}(?:/{_STEP}){{1,12}}")
# Wishes that the format has no field for, with the caller's name of the field.
_UNNAMED = (("audio", "audio"), ("width", "size"), ("guidance_scale", "guidance_scale"), ("steps", "steps"))
# A caller's own fields that belong to what the film is made of, not to how.
_INSTANCE = frozenset({"lastFrame", "referenceImages", "video"})


class _Operation(Struct, frozen=True, kw_only=True):
    """How a long operation stands; `response` and `error` come with its end."""

    name: str | None = None
    done: bool | None = None
    error: Raw = ABSENT
    response: Raw = ABSENT


class _Video(Struct, frozen=True, kw_only=True):
    uri: str | None = None


class _Sample(Struct, frozen=True, kw_only=True):
    video: _Video | None = None


class _Videos(Struct, frozen=True, kw_only=True, rename="camel"):
    generated_samples: tuple[_Sample, ...] | None = None
    rai_media_filtered_count: int | None = None
    rai_media_filtered_reasons: tuple[str, ...] | None = None


class _Response(Struct, frozen=True, kw_only=True, rename="camel"):
    generate_video_response: _Videos | None = None


class _Reason(Struct, frozen=True, kw_only=True):
    code: int | None = None
    message: str | None = None
    status: str | None = None


_operation_decoder = msgspec.json.Decoder(_Operation)
_response_decoder = msgspec.json.Decoder(_Response)
_reason_decoder = msgspec.json.Decoder(_Reason)


class GeminiVideos:
    """Makes films."""

    look_every_s = 10.0

    def submit(self, request: VideoRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:
        """Hand the job in.

        Raises:
            InvalidRequest: it asks for what this vendor has no field for.
            ProviderError: the answer names no job, or one that has failed already.
        """
        del facts
        wanted = HttpRequest(
            method="POST",
            url=model_url(target, "predictLongRunning"),
            body=msgspec.json.encode(_payload(request, target)),
            headers=JSON_HEADERS,
        )
        reply = yield Send(request=wanted, is_paid=True)
        operation = _read(reply, target)
        if is_present(operation.error):
            raise _failure(operation.error, target)
        if operation.name is None or not _OPERATION.fullmatch(operation.name):
            raise bad_response(target, "names no job", status=None if reply is None else reply.status)
        return Ticket(id=operation.name)

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:
        """Ask how it stands.

        Raises:
            ProviderError: the answer is no job.
        """
        del facts
        if not _OPERATION.fullmatch(ticket.id):
            raise bad_response(target, "named no job")
        url = f"{target.deployment.base_url}/{ticket.id}"
        reply = yield Send(request=HttpRequest(method="GET", url=url, body=b""))
        operation = _read(reply, target)
        if is_present(operation.error):
            # An error without a name is about the look, not about the job.
            if operation.name is None:
                raise _failure(operation.error, target, is_of_job=False)
            return JobView(status="failed", error=_failure(operation.error, target))
        if not operation.done:
            if operation.name is None:
                raise bad_response(target, "is no job", status=None if reply is None else reply.status)
            return JobView(status="running")
        return _finished(operation.response, target)

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Medium]:
        """Fetch the film: with the credential at the vendor's own place, without it elsewhere.

        Raises:
            ProviderError: it cannot be had, or is no film.
        """
        del ticket, facts
        uri = view.data.get(_URI, "")
        own = own_address(uri, target)
        if own is None:
            reply = yield Fetch(url=_elsewhere(uri, target))
            return _film(reply, target)
        reply = yield Send(request=HttpRequest(method="GET", url=own, body=b""), reads_failures=True)
        if reply is not None and reply.status in _REDIRECTS:
            location = reply.headers.get("location", "")
            reply = yield Fetch(url=_elsewhere(location, target, near=own))
        elif reply is not None and reply.status >= _FIRST_FAILURE_STATUS:
            raise target.deployment.codecs.decode_error(reply, target)
        return _film(reply, target)

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> None:
        """Offer no way: the vendor stops no film that is being made."""
        del ticket, target, facts


def own_address(url: str, target: Target) -> str | None:
    """Return an address that the vendor named, on the deployment's own origin; None where it lies elsewhere.

    The credential goes nowhere but to that origin, which is therefore taken from the deployment.
    """
    base = urlsplit(target.deployment.base_url)
    try:
        parts = urlsplit(url)
        is_own = _origin(parts) == _origin(base)
    except ValueError:
        return None
    if not is_own:
        return None
    query = f"?{parts.query}" if parts.query else ""
    return f"{base.scheme}://{base.netloc}{parts.path}{query}"


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    return parts.scheme, parts.hostname, usual if parts.port is None else parts.port


def _payload(request: VideoRequest, target: Target) -> dict[str, Any]:
    """Return the fields; what the codec sets wins over the catalog's, and these over a caller's own."""
    for name, param in _UNNAMED:
        if getattr(request, name) is not None:
            raise not_carried(param, target)
    if request.n != 1:
        raise not_carried("n", target)
    instance: dict[str, Any] = {"prompt": request.prompt}
    if request.image is not None:
        picture = medium_of(request.image, "image")
        data = base64.b64encode(picture.data).decode()
        instance["image"] = {"bytesBase64Encoded": data, "mimeType": picture.type}
    said: dict[str, Any] = {
        "aspectRatio": request.aspect_ratio,
        "resolution": request.resolution,
        "durationSeconds": request.duration_s,
        "negativePrompt": request.negative_prompt,
        "seed": request.seed,
        "enhancePrompt": request.prompt_expansion,
        "generateAudio": request.generate_audio,
    }
    said = {name: value for name, value in said.items() if value is not None}
    spec = target.model.media
    own = {name: value for name, value in request.extra.items() if name in _INSTANCE}
    rest = {name: value for name, value in request.extra.items() if name not in _INSTANCE}
    parameters = merged(rest, merged(spec.fields if spec is not None else {}, said))
    return {"instances": [{**own, **instance}], "parameters": parameters}


def _read(reply: HttpReply | None, target: Target) -> _Operation:
    """Read how an operation stands.

    Raises:
        BadProviderResponse: the answer does not say.
    """
    operation = None if reply is None else read_lenient(_operation_decoder, reply.body)
    if operation is None:
        raise bad_response(target, "is no job", status=None if reply is None else reply.status)
    return operation


def _finished(raw: Raw, target: Target) -> JobView:
    """Return what came of a job: where its film is, or why there is none."""
    response = (read_lenient(_response_decoder, raw) if is_present(raw) else None) or _Response()
    videos = response.generate_video_response or _Videos()
    for sample in videos.generated_samples or ():
        if sample.video is not None and sample.video.uri:
            return JobView(status="succeeded", data={_URI: sample.video.uri})
    if videos.rai_media_filtered_reasons or videos.rai_media_filtered_count:
        reasons = "; ".join(videos.rai_media_filtered_reasons or ())
        return JobView(status="failed", error=filtered(reasons, target, is_unbilled=True))
    error = bad_response(target, "holds no film")
    # Only films are billed; but an answer in another form than this may hold one.
    error.is_unbilled = response.generate_video_response is not None
    return JobView(status="failed", error=error)


def _failure(raw: Raw, target: Target, *, is_of_job: bool = True) -> ProviderError:
    """Return the error that an operation ended with; a film that was not made is not billed."""
    reason = read_lenient(_reason_decoder, raw) or _Reason()
    code, message = reason.code or 0, reason.message or ""
    status = _STATUSES.get(code, code if _CALLER_STATUSES <= code <= _LAST_STATUS else _BROKEN)
    codes = (reason.status,) if reason.status else ()
    if status == _CALLER_STATUSES and any(mark in message.lower() for mark in _FILTER_MARKS):
        return filtered(message, target, is_unbilled=True)
    error = typed_error(
        VendorFailure(status=status, message=message or "no reason is given", codes=codes), target
    )
    error.is_unbilled = is_of_job
    return error


def _elsewhere(url: str, target: Target, near: str = "") -> str:
    """Return an address that can be fetched without a credential; it may be relative to the one it is named at.

    Raises:
        BadProviderResponse: it is none.
    """
    try:
        address = urljoin(near, url) if url else ""
        parts = urlsplit(address)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        is_address = False
    if not is_address:
        raise bad_response(target, "names no address of a film")
    return address


def _film(reply: HttpReply | None, target: Target) -> Medium:
    """Return the film of an answer.

    Raises:
        ProviderError: it is empty, a page, or consists of an error.
    """
    if reply is None or not reply.body:
        raise bad_response(target, "holds no film", status=None if reply is None else reply.status)
    found = type_of(reply.body)
    if found is None:
        error = error_in_success(reply.body[:65_536], target)
        if error is not None:
            raise error
        said = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        is_words = reply.body[:64].lstrip()[:1] in {b"<", b"{", b"["}
        found = said if said.startswith("video/") and not is_words else None
    if found is None or not found.startswith("video/"):
        raise bad_response(target, "holds no film", status=reply.status)
    return Medium(data=reply.body, type=found)
