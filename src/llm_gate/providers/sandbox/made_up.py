"""A value that fits a JSON Schema, made up: for the sandbox's tool calls and structured answers.

Schemas come from strangers: whatever is no schema keyword of the right type is ignored, and size is bounded.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from llm_gate.domain.errors import InvalidRequest

_MAX_DEPTH = 24
_LEAN_DEPTH = 6
_MAX_VALUES = 2000
_MAX_TEXT_CHARS = 10_000
_TEXT = "synthetic"
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "duration": "PT1S",
    "email": "synthetic@example.com",
    "hostname": "synthetic.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/synthetic",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def synthesise(schema: Any) -> Any:
    """Return a value that fits a schema, as far as types, enums, required keys and simple bounds go.

    Raises:
        InvalidRequest: the smallest such value would be unreasonably large.
    """
    return _Maker(schema).value(schema, 0)


class _Maker:
    """Makes one value; counts what it has made, so that no schema can make it run away."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._made = 0

    def value(self, schema: Any, depth: int) -> Any:
        self._made += 1
        if self._made > _MAX_VALUES or depth > _MAX_DEPTH:
            raise InvalidRequest("the schema asks for more than can be made up")
        if not isinstance(schema, Mapping):
            return _TEXT
        schema = self._resolve(schema)
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum")
        if isinstance(choices, list) and choices:
            return choices[0]
        if "default" in schema and "type" not in schema:
            return schema["default"]
        match _kind(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, depth)
            case "integer" | "number" as kind:
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _text(schema)

    def _resolve(self, schema: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """Follow references and fold allOf and the first branch of anyOf and oneOf into one plain schema."""
        for _ in range(_MAX_DEPTH):
            parts: list[Any] = []
            reference = schema.get("$ref")
            if isinstance(reference, str):
                parts.append(_follow(reference, self._root))
            for key, only_first in (("allOf", False), ("anyOf", True), ("oneOf", True)):
                branches = schema.get(key)
                if isinstance(branches, list):
                    parts += branches[:1] if only_first else branches[:_MAX_VALUES]
            if not parts:
                break
            plain: dict[Any, Any] = {}
            own = {
                key: value for key, value in schema.items() if key not in {"$ref", "allOf", "anyOf", "oneOf"}
            }
            for part in (*parts, own):
                if isinstance(part, Mapping):
                    _fold(plain, part)
            schema = plain
        return schema

    def _object(self, schema: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        properties = _mapping(schema, "properties")
        required = [name for name in _list(schema, "required") if isinstance(name, str)]
        # Deep in a recursive schema only what must be there is made, so that it ends.
        optional = properties if depth < _LEAN_DEPTH else ()
        names = dict.fromkeys((*optional, *required))
        others = schema.get("additionalProperties", True)
        return {str(name): self.value(properties.get(name, others), depth + 1) for name in names}

    def _array(self, schema: Mapping[Any, Any], depth: int) -> list[Any]:
        first = _list(schema, "prefixItems")
        least = _count(schema, "minItems") or 0
        wanted = max(least, len(first), 1 if depth < _LEAN_DEPTH else 0)
        most = _count(schema, "maxItems")
        count = wanted if most is None else min(wanted, most)
        if count > _MAX_VALUES:
            raise InvalidRequest("the schema asks for more than can be made up")
        rest = schema.get("items", True)
        made: list[Any] = []
        for place in range(count):
            item = self.value(first[place] if place < len(first) else rest, depth + 1)
            if schema.get("uniqueItems") is True and item in made:
                item = self._another(rest, item, place)
            made.append(item)
        return made

    def _another(self, schema: Any, item: Any, place: int) -> Any:
        """Return a value unlike the ones before it, where the schema leaves room for that."""
        choices = _list(self._resolve(schema), "enum") if isinstance(schema, Mapping) else []
        if choices:
            return choices[place % len(choices)]
        if isinstance(item, str):
            return f"{item}{place}"
        return item + place if isinstance(item, int | float) and not isinstance(item, bool) else item


def _fold(plain: dict[Any, Any], part: Mapping[Any, Any]) -> None:
    for key, value in part.items():
        if key == "properties" and isinstance(value, Mapping):
            plain[key] = {**_mapping(plain, key), **value}
        elif key == "required" and isinstance(value, list):
            plain[key] = [*_list(plain, key), *value]
        else:
            plain[key] = value


def _kind(schema: Mapping[Any, Any]) -> Any:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = kind[0] if kind else None
    if kind is None and ("properties" in schema or "required" in schema):
        return "object"
    if kind is None and ("items" in schema or "prefixItems" in schema):
        return "array"
    if kind is None and {"minimum", "maximum", "multipleOf"} & schema.keys():
        return "number"
    return kind


def _text(schema: Mapping[Any, Any]) -> str:
    wanted = schema.get("format")
    text = _FORMATS.get(wanted, _TEXT) if isinstance(wanted, str) else _TEXT
    least = _count(schema, "minLength") or 0
    if least > _MAX_TEXT_CHARS:
        raise InvalidRequest("the schema asks for a longer text than can be made up")
    return text.ljust(least, ".")[: _count(schema, "maxLength")]


def _number(schema: Mapping[Any, Any], *, whole: bool) -> int | float:
    """Return the number nearest to 1 that the bounds allow, as far as they allow any."""
    low, above = _bound(schema, "minimum"), _bound(schema, "exclusiveMinimum")
    high, below = _bound(schema, "maximum"), _bound(schema, "exclusiveMaximum")
    step = _bound(schema, "multipleOf") or (Fraction(1) if whole else None)
    if above is not None and (low is None or above >= low):
        low = above + (step or _gap(above, below if below is not None else high))
    if below is not None and (high is None or below <= high):
        high = below - (step or _gap(low if low is not None else below - 1, below))
    value = Fraction(1)
    value = value if high is None else min(value, high)
    value = value if low is None else max(value, low)
    if step:
        value = math.ceil(value / step) * step
        if high is not None and value > high:
            value = math.floor(high / step) * step
    return int(value) if value.denominator == 1 else float(value)


def _gap(low: Fraction, high: Fraction | None) -> Fraction:
    return Fraction(1) if high is None or high - low > 2 else (high - low) / 2  # noqa: PLR2004


def _bound(schema: Mapping[Any, Any], key: str) -> Fraction | None:
    value = schema.get(key)
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return Fraction(value)


def _count(schema: Mapping[Any, Any], key: str) -> int | None:
    value = schema.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mapping(schema: Mapping[Any, Any], key: str) -> Mapping[Any, Any]:
    value = schema.get(key)
    return value if isinstance(value, Mapping) else {}


def _list(schema: Mapping[Any, Any], key: str) -> list[Any]:
    value = schema.get(key)
    return value if isinstance(value, list) else []


def _follow(reference: str, root: Any) -> Any:
    node = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if name:
            node = node.get(name, True) if isinstance(node, Mapping) else True
    return node
