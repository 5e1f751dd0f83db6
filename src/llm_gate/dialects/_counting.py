"""What requests for counts of tokens have in common: a chat's body without what is not counted; one number back."""

from collections.abc import Set as AbstractSet

import msgspec
from msgspec import Raw, structs

from llm_gate.dialects._failures import bad_response
from llm_gate.domain.counting import Tokens
from llm_gate.domain.provider import HttpReply, HttpRequest, Target

_fields_decoder = msgspec.json.Decoder(dict[str, Raw])
_count_decoder = msgspec.json.Decoder(Tokens)


def body_fields(request: HttpRequest) -> dict[str, Raw]:
    """Return the top-level fields of a request's body."""
    return _fields_decoder.decode(request.body)


def only(request: HttpRequest, names: AbstractSet[str], url: str) -> HttpRequest:
    """Return a request to another address with none but the named fields."""
    body = {name: raw for name, raw in body_fields(request).items() if name in names}
    return structs.replace(request, url=url, body=msgspec.json.encode(body))


def read_count(reply: HttpReply, name: str, target: Target) -> int:
    """Return the count that stands in a field of a successful reply.

    Raises:
        BadProviderResponse: there is none.
    """
    try:
        return _count_decoder.decode(_fields_decoder.decode(reply.body)[name])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        raise bad_response(target, "is no count of tokens", status=reply.status) from None
