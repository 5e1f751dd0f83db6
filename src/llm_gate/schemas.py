"""Checks values against JSON Schemas that callers sent. Nothing is ever fetched for a schema."""

from collections import OrderedDict
from typing import Any

import jsonschema_rs
import msgspec

from llm_gate.domain.errors import InvalidRequest

MAX_COMPILED = 256
"""How many compiled schemas are kept; the least recently used goes first."""


class SchemaChecks:
    """Compiles schemas once and checks values against them."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[bytes, jsonschema_rs.Validator] = OrderedDict()

    @property
    def size(self) -> int:
        """How many compiled schemas are kept; at most MAX_COMPILED."""
        return len(self._compiled)

    def __call__(self, schema: bytes, value: object) -> list[str]:
        """Return what is wrong with a value, each with its place; empty when it fits.

        Raises:
            InvalidRequest: the schema itself is not one, or points at something outside itself.
        """
        validator = self._validator(schema)
        return [f"{_place(error.instance_path)}: {error.message}" for error in validator.iter_errors(value)]

    def _validator(self, schema: bytes) -> jsonschema_rs.Validator:
        known = self._compiled.get(schema)
        if known is not None:
            self._compiled.move_to_end(schema)
            return known
        try:
            made = jsonschema_rs.validator_for(msgspec.json.decode(schema), retriever=_refuse)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            first_line = str(error).splitlines()[0]
            raise InvalidRequest(
                f"response_format: the JSON Schema cannot be used: {first_line}", param="response_format"
            ) from None
        self._compiled[schema] = made
        if len(self._compiled) > MAX_COMPILED:
            self._compiled.popitem(last=False)
        return made


def _refuse(address: str) -> Any:
    """Fetch nothing: a caller's schema must not make the gateway call anybody."""
    raise ValueError(f"{address} lies outside the schema")


def _place(path: list[str | int]) -> str:
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
