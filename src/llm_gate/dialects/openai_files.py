"""Files in the OpenAI wire format, inbound: the form they come in, and how they are shown."""

import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.files import FilePurpose, StoredFile
from llm_gate.domain.media import Medium

UPLOADED: tuple[FilePurpose, ...] = ("fine-tune", "batch", "assistants", "vision", "user_data", "evals")
"""What callers may hand files in for."""

_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_LEAST_S, _MOST_S = 3_600, 2_592_000
_BATCH_S = _MOST_S
_MAX_NAME_CHARS = 255
_NUMBER = re.compile(r"[0-9]{1,9}")
_SECOND_MS = 1000


class Upload(Struct, frozen=True, kw_only=True):
    """A file as a caller hands it in."""

    purpose: FilePurpose
    name: str
    data: bytes
    expires_after_s: int | None


class FileObject(Struct, frozen=True, kw_only=True):
    """How a file is shown; times in seconds since 1970."""

    object: Literal["file"]
    id: str
    purpose: FilePurpose
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None
    status: Literal["processed"]
    status_details: None


class FileList(Struct, frozen=True, kw_only=True):
    """A page of files."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Struct, frozen=True, kw_only=True):
    """A file that was removed."""

    object: Literal["file"] = "file"
    id: str
    deleted: bool = True


def decode_upload(fields: Mapping[str, list[str]], files: Mapping[str, list[Medium]]) -> Upload:
    """Read a file from a parsed form.

    Raises:
        InvalidRequest: it is malformed.
    """
    for name, number in [(each, len(given)) for form in (fields, files) for each, given in form.items()]:
        if name not in {"file", "purpose", _ANCHOR, _SECONDS}:
            raise _refused(name, "unknown field")
        if number != 1:
            raise _refused(name, "must be given once")
    if "file" not in files:
        raise _refused("file", "must be a file")
    given = fields.get("purpose", [""])[0]
    purpose = next((each for each in UPLOADED if each == given), None)
    if purpose is None:
        raise _refused("purpose", f"must be one of {', '.join(UPLOADED)}")
    medium = files["file"][0]
    if not medium.data:
        raise _refused("file", "it is empty")
    name = medium.name or "file"
    if len(name) > _MAX_NAME_CHARS or not name.isprintable():
        raise _refused("file", f"its name must be printable text of at most {_MAX_NAME_CHARS} characters")
    return Upload(
        purpose=purpose, name=name, data=medium.data, expires_after_s=_expires_after(fields, purpose)
    )


def _expires_after(fields: Mapping[str, list[str]], purpose: FilePurpose) -> int | None:
    """Return after how many seconds a file ends; those of batches end by themselves, as OpenAI's do."""
    anchor, seconds = fields.get(_ANCHOR), fields.get(_SECONDS)
    if anchor is None and seconds is None:
        return _BATCH_S if purpose == "batch" else None
    if anchor != ["created_at"]:
        raise _refused(_ANCHOR, "must be created_at")
    said = "" if seconds is None else seconds[0]
    if not _NUMBER.fullmatch(said) or not _LEAST_S <= int(said) <= _MOST_S:
        raise _refused(_SECONDS, f"must be a number from {_LEAST_S} to {_MOST_S}")
    return int(said)


def file_object(file: StoredFile) -> FileObject:
    """Return a file as this format shows it."""
    return FileObject(
        object="file",
        id=file.id,
        purpose=file.purpose,
        filename=file.name,
        bytes=file.size,
        created_at=file.made_ms // _SECOND_MS,
        expires_at=None if file.expires_ms is None else file.expires_ms // _SECOND_MS,
        status="processed",
        status_details=None,
    )


def encode_file(file: StoredFile) -> bytes:
    """Write a file."""
    return msgspec.json.encode(file_object(file))


def encode_files(files: Sequence[StoredFile], *, has_more: bool) -> bytes:
    """Write a page of files."""
    first, last = (files[0].id, files[-1].id) if files else (None, None)
    page = FileList(
        data=[file_object(file) for file in files], first_id=first, last_id=last, has_more=has_more
    )
    return msgspec.json.encode(page)


def _refused(name: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {message}", param=name)
