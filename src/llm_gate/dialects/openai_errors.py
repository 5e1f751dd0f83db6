"""Errors in the OpenAI wire format, and in the forms its compatible vendors use; read and written."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Raw

from llm_gate.dialects._failures import VendorFailure, plain_text, retry_after_s, typed_error
from llm_gate.dialects.usage_info import UsageInfo
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.provider import HttpReply, Target

_TOO_MANY = 429
_EPOCH_MS = re.compile(r"\d{13}")
_LONGEST_RESET_S = 86_400


def decode_error(reply: HttpReply, target: Target) -> ProviderError:
    """Turn a reply that is not a success into the typed error."""
    try:
        document = msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        document = None
    failure = _read(document, reply.status)
    wait_s = retry_after_s(reply.headers)
    if wait_s is None and reply.status == _TOO_MANY:
        wait_s = _until_reset_s(reply.headers)
    return typed_error(
        VendorFailure(
            status=failure.status,
            message=failure.message or plain_text(reply),
            codes=failure.codes,
            param=failure.param,
            retry_after_s=wait_s,
        ),
        target,
    )


def _until_reset_s(headers: Mapping[str, str]) -> float | None:
    """Read when a limit is lifted, in milliseconds since 1970 as one vendor writes it, by the answer's own clock."""
    text = headers.get("x-ratelimit-reset", "")
    if not _EPOCH_MS.fullmatch(text):
        return None
    try:
        now = parsedate_to_datetime(headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    wait_s = int(text) / 1000 - now.timestamp()
    return wait_s if 0 < wait_s < _LONGEST_RESET_S else None


def error_in_success(raw: Raw | bytes, target: Target) -> ProviderError:
    """Turn an `error` value found inside a 200 answer or a stream into the typed error.

    The status is taken from the error itself where it names one; a vendor's own failure is assumed otherwise.
    """
    try:
        document = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        document = None
    return typed_error(_read({"error": document}, 0), target)


def _read(document: Any, status: int) -> VendorFailure:
    if isinstance(document, list) and document:
        document = document[0]
    if not isinstance(document, dict):
        return VendorFailure(status=status)
    error = document.get("error", document)
    if isinstance(error, str):
        # The text stands alone, and what names its kind beside it.
        document = {**document, "message": error}
        error = document
    if not isinstance(error, dict):
        error = document
    keys = ("code", "type", "error_type")
    codes = [str(error[key]) for key in keys if isinstance(error.get(key), str | int)]
    inner = error.get("innererror")
    if isinstance(inner, dict) and isinstance(inner.get("code"), str):
        codes.append(inner["code"])
    named = [value for key in ("status", "code") if (value := _http_status(error.get(key))) is not None]
    param = error.get("param")
    return VendorFailure(
        status=status or (named[0] if named else _status_of_codes(codes)),
        message=_message(error),
        codes=tuple(codes),
        param=param if isinstance(param, str) else None,
    )


_UNNAMED = 502
_REJECTED = 400
# Words for what is wrong with the request, where no status says so.
_CALLERS = frozenset(
    {"invalid_request_error", "content_filter", "invalid_prompt", "failed_to_download_image"}
)
_CALLERS_PREFIXES = ("invalid_image", "invalid_base64_image", "image_", "unsupported_image", "empty_image")


def _status_of_codes(codes: list[str]) -> int:
    """Guess the status an error inside a 200 stands for, from its own words."""
    callers = any(code in _CALLERS or code.startswith(_CALLERS_PREFIXES) for code in codes)
    return _REJECTED if callers else _UNNAMED


def _http_status(value: Any) -> int | None:
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    in_range = isinstance(value, int) and not isinstance(value, bool) and 400 <= value < 600  # noqa: PLR2004
    return value if in_range else None


def _message(error: dict[str, Any]) -> str:
    for key in ("message", "detail", "details", "title", "error"):
        value = error.get(key)
        if isinstance(value, str) and value:
            return value
        if isinstance(value, list | dict) and value:
            return msgspec.json.encode(value).decode()
    return ""


def encode_error(
    message: str, *, kind: str, code: str | None, param: str | None, usage_info: UsageInfo | None = None
) -> bytes:
    """Write an error body: `{"error": {message, type, param, code, usage_info?}}`."""
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    if usage_info is not None:
        error["usage_info"] = usage_info
    return msgspec.json.encode({"error": error})
