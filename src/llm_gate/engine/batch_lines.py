"""The lines of a batch: read and checked before anything is spent, and written when they have come to something."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec
from msgspec import Raw, Struct

from llm_gate.domain.batches import (
    MOST_BATCH_BYTES,
    MOST_FAULTS,
    MOST_INPUTS,
    MOST_LINES,
    Batch,
    BatchEndpoint,
    BatchFault,
    BatchTokens,
)
from llm_gate.domain.catalog import Ability
from llm_gate.domain.errors import GateError, InvalidRequest
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.usage import Usage
from llm_gate.engine.answer import Answer

_LONGEST_MARK = 512


class AskedLine(Protocol):
    """A line's call as it was read, with what writing its answer needs."""

    @property
    def request(self) -> ChatRequest | EmbeddingRequest:
        """The call."""


class Spot(Struct, frozen=True, kw_only=True):
    """Whose line it is: its id, the caller's own mark, and the id of its call."""

    id: str
    custom_id: str
    request_id: str


class Wording(Protocol):
    """Reads calls and writes lines in the wire format of the surface."""

    def ask(self, endpoint: BatchEndpoint, body: bytes) -> AskedLine:
        """Read the body of a line's call.

        Raises:
            InvalidRequest: it is malformed.
        """

    def answered(self, spot: Spot, asked: AskedLine, answer: Answer[Any], *, at_s: int) -> bytes:
        """Write the line of a call that was answered."""

    def refused(self, spot: Spot, error: GateError) -> bytes:
        """Write the line of a call that came to an error."""

    def lost(self, spot: Spot, *, code: str, message: str) -> bytes:
        """Write the line of a call that was not made, or whose answer is not there."""


class Line(Struct, frozen=True, kw_only=True):
    """One line of an input file; the first is number 1."""

    number: int
    custom_id: str
    body: bytes


class Named(Struct, frozen=True, kw_only=True):
    """A model as some lines ask for it, and the first of them."""

    model: str
    needs: frozenset[Ability]
    line: int


class Sheet(Struct, frozen=True, kw_only=True):
    """The lines of a file, the models they ask for, and what is wrong with them."""

    lines: tuple[Line, ...]
    models: tuple[Named, ...]
    faults: tuple[BatchFault, ...]


class _Written(Struct, frozen=True):
    custom_id: str
    method: str
    url: str
    body: Raw


_decoder = msgspec.json.Decoder(_Written)


def spot_of(batch: Batch, line: Line) -> Spot:
    """Return whose line it is."""
    return Spot(
        id=f"batch_req_{batch.stem}-{line.number}",
        custom_id=line.custom_id,
        request_id=f"{batch.id}-{line.number}",
    )


def split(data: bytes) -> list[bytes]:
    """Return the lines of a file; the last may end with the file."""
    lines = data.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    return lines


def read_lines(data: bytes) -> tuple[Line, ...]:
    """Read the lines of a file that was found good before."""
    found = (_decoder.decode(line) for line in split(data))
    return tuple(
        Line(number=number, custom_id=each.custom_id, body=bytes(each.body))
        for number, each in enumerate(found, start=1)
    )


def check_sheet(data: bytes, endpoint: BatchEndpoint, wording: Wording) -> Sheet:
    """Read the lines of a file and say what is wrong with them; takes its time, so that it belongs into a thread."""
    texts = split(data)
    whole = _whole_faults(data, texts)
    if whole:
        return Sheet(lines=(), models=(), faults=whole)
    checking = _Checking(endpoint, wording)
    for number, text in enumerate(texts, start=1):
        checking.take(number, text)
        if len(checking.faults) >= MOST_FAULTS:
            break
    return Sheet(
        lines=tuple(checking.lines), models=tuple(checking.models.values()), faults=tuple(checking.faults)
    )


def _whole_faults(data: bytes, texts: Sequence[bytes]) -> tuple[BatchFault, ...]:
    message = ""
    if not texts:
        return (BatchFault(code="empty_file", message="The input file is empty."),)
    if len(data) > MOST_BATCH_BYTES:
        message = f"The input file is larger than {MOST_BATCH_BYTES} bytes."
    elif len(texts) > MOST_LINES:
        message = f"The input file has more than {MOST_LINES} lines."
    return (BatchFault(code="file_too_large", message=message),) if message else ()


class _Checking:
    """What has been read of a file so far."""

    def __init__(self, endpoint: BatchEndpoint, wording: Wording) -> None:
        self._endpoint = endpoint
        self._wording = wording
        self._seen: set[str] = set()
        self._inputs = 0
        self.lines: list[Line] = []
        self.models: dict[tuple[str, frozenset[Ability]], Named] = {}
        self.faults: list[BatchFault] = []

    def take(self, number: int, text: bytes) -> None:
        """Read one line."""
        try:
            written = _decoder.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._fault("invalid_json_line", f"This line is not a call: {error}", number)
            return
        if not self._is_framed(number, written):
            return
        body = bytes(written.body)
        try:
            request = self._wording.ask(self._endpoint, body).request
        except InvalidRequest as error:
            self._fault(
                "invalid_body", error.message, number, f"body.{error.param}" if error.param else "body"
            )
            return
        needs: frozenset[Ability] = frozenset()
        if isinstance(request, ChatRequest):
            needs = request.needs
            if request.stream:
                self._fault("stream_in_batch", "A call in a batch cannot be streamed.", number, "body.stream")
                return
        else:
            self._inputs += len(request.inputs)
            if self._inputs > MOST_INPUTS:
                self._fault(
                    "too_many_inputs", f"More than {MOST_INPUTS} texts in one batch.", number, "body.input"
                )
        self.models.setdefault((request.model, needs), Named(model=request.model, needs=needs, line=number))
        self.lines.append(Line(number=number, custom_id=written.custom_id, body=body))

    def _is_framed(self, number: int, written: _Written) -> bool:
        """Tell whether what stands around the body is as it must be."""
        before = len(self.faults)
        if not written.custom_id or len(written.custom_id) > _LONGEST_MARK:
            self._fault(
                "invalid_custom_id",
                f"custom_id must have 1 to {_LONGEST_MARK} characters.",
                number,
                "custom_id",
            )
        elif written.custom_id in self._seen:
            self._fault(
                "duplicate_custom_id",
                f"The custom_id {written.custom_id!r} for this request is a duplicate of another request. "
                "The custom_id parameter must be unique for each request in a batch.",
                number,
                "custom_id",
            )
        self._seen.add(written.custom_id)
        if written.method != "POST":
            self._fault("invalid_method", "The method of every call must be POST.", number, "method")
        if written.url != self._endpoint:
            self._fault(
                "invalid_url",
                f"The URL provided for this request does not match the batch endpoint {self._endpoint}.",
                number,
                "url",
            )
        return len(self.faults) == before

    def _fault(self, code: str, message: str, number: int, param: str | None = None) -> None:
        self.faults.append(BatchFault(code=code, message=message, line=number, param=param))


def add_tokens(tokens: BatchTokens | None, usage: Usage | None) -> BatchTokens | None:
    """Return the tokens with those of one more call; what is not known adds nothing to what is shown."""
    if usage is None:
        return tokens
    known = tokens or BatchTokens()
    return BatchTokens(
        input=known.input + usage.input_tokens,
        cached=known.cached + usage.cached_input_tokens,
        output=known.output + usage.output_tokens,
        reasoning=known.reasoning + usage.reasoning_tokens,
    )


def add_units(units: Mapping[str, int], usage: Usage) -> dict[str, int]:
    """Return counts with those of one more call."""
    return {name: units.get(name, 0) + usage.counts.get(name, 0) for name in {**units, **usage.counts}}
