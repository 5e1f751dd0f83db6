"""What stands behind the question mark of an address, read strictly."""

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from llm_gate.domain.errors import InvalidRequest
from llm_gate.http.exchange import Exchange

_MAX_FIELDS = 50
_NUMBER = re.compile(r"[0-9]{1,9}")
_FLAGS = {"true": True, "1": True, "false": False, "0": False}


class Query:
    """The fields of a request's query; of those given twice, the last counts."""

    def __init__(self, exchange: Exchange) -> None:
        try:
            fields = parse_qsl(
                exchange.query.decode(), errors="strict", keep_blank_values=True, max_num_fields=_MAX_FIELDS
            )
        except ValueError:
            raise InvalidRequest("the query is not valid") from None
        self._fields = {name: value for name, value in fields if value}

    def only(self, *names: str) -> None:
        """Refuse fields of other names.

        Raises:
            InvalidRequest: there is one.
        """
        for name in self._fields:
            if name not in names:
                raise InvalidRequest(f"{name}: unknown parameter", param=name)

    @property
    def fields(self) -> Mapping[str, str]:
        """Every field by its name."""
        return self._fields

    def text(self, name: str) -> str | None:
        """Return a field; None where it is absent or empty."""
        return self._fields.get(name)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """Return a whole number.

        Raises:
            InvalidRequest: it is none, or lies outside.
        """
        value = self._fields.get(name)
        if value is None:
            return default
        if not _NUMBER.fullmatch(value) or not least <= int(value) <= most:
            raise InvalidRequest(f"{name}: expected a whole number from {least} to {most}", param=name)
        return int(value)

    def flag(self, name: str) -> bool:
        """Return a yes or no; absent is no.

        Raises:
            InvalidRequest: it is neither.
        """
        value = self._fields.get(name, "false").lower()
        if value not in _FLAGS:
            raise InvalidRequest(f"{name}: expected true or false", param=name)
        return _FLAGS[value]
