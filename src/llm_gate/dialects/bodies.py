"""Reads a request body into a record and reports everything that is wrong with it, for the surfaces of our own."""

from decimal import Decimal
from typing import TypeVar

import msgspec
from msgspec import Struct

from llm_gate.dialects._json import read_object
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.faults import find_faults

R = TypeVar("R", bound=Struct)
# Numbers may be money, which never passes through a float.
_decoder = msgspec.json.Decoder(float_hook=Decimal)


def read_record(body: bytes, kind: type[R]) -> R:
    """Read a JSON body.

    Raises:
        InvalidRequest: it is no JSON object of this kind; `faults` holds everything that is wrong.
    """
    read_object(body)
    value = _decoder.decode(body)
    faults = find_faults(value, kind)
    if faults:
        first = faults[0]
        message = f"{first.path}: {first.message}" if first.path else first.message
        raise InvalidRequest(message, param=first.path or None, faults=faults)
    return msgspec.convert(value, kind)
