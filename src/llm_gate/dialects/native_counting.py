"""The native wire format of counts: a chat's body with the wanted source beside it, and the count with its band."""

from typing import Literal

import msgspec
from msgspec import Raw

from llm_gate.dialects._json import ABSENT, is_given, read_object
from llm_gate.dialects.native import decode_chat_request
from llm_gate.dialects.native_faults import add_fault, refusal
from llm_gate.dialects.native_wire import ChatBody, ModelName, ProviderName, Reply
from llm_gate.domain.counting import CountSource, TokenCount
from llm_gate.domain.errors import Fault, InvalidRequest
from llm_gate.domain.requests import ChatRequest

_source_decoder = msgspec.json.Decoder(CountSource)


class CountBody(ChatBody, frozen=True, kw_only=True):
    """The body of a chat request, and who is to count it."""

    source: Literal["vendor", "tokenizer", "estimate"] | None = None


class CountReply(Reply, frozen=True, kw_only=True):
    """A count, who counted, and where eight of ten vendors' own counts lie."""

    input_tokens: int
    least_tokens: int
    most_tokens: int
    source: CountSource
    provider: ProviderName


def decode_count_request(body: bytes) -> tuple[ChatRequest, CountSource | None]:
    """Read what is to be counted, and who is to do it.

    Raises:
        InvalidRequest: it is malformed; `faults` holds everything that is wrong.
    """
    fields = read_object(body)
    faults: list[Fault] = []
    source = _read_source(fields.pop("source", ABSENT), faults)
    try:
        request = decode_chat_request(msgspec.json.encode(fields))
    except InvalidRequest as error:
        for fault in error.faults:
            add_fault(faults, fault)
        raise refusal(faults) from None
    if faults:
        raise refusal(faults)
    return request, source


def encode_count(count: TokenCount) -> bytes:
    """Write a count."""
    reply = CountReply(
        input_tokens=count.input_tokens,
        least_tokens=count.least_tokens,
        most_tokens=count.most_tokens,
        source=count.source,
        provider=ProviderName(name=count.provider, model=ModelName(name=count.model)),
    )
    return msgspec.json.encode(reply)


def _read_source(raw: Raw, faults: list[Fault]) -> CountSource | None:
    if not is_given(raw):
        return None
    try:
        source: CountSource = _source_decoder.decode(raw)
    except msgspec.DecodeError:
        faults.append(Fault("source", "must be one of vendor, tokenizer, estimate"))
        return None
    return source
