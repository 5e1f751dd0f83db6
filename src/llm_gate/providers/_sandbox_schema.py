"""A value that fits a JSON Schema, made up: for the sandbox's tool calls and structured answers."""

from collections.abc import Mapping
from typing import Any

_MAX_DEPTH = 12
_FORMATS = {
    "date": "2026-01-01",
    "date-time": "2026-01-01T00:00:00Z",
    "time": "00:00:00Z",
    "email": "synthetic@example.com",
    "uri": "https://example.com/synthetic",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def synthesise(schema: Any) -> Any:
    """Return a value that fits a schema, as far as types, enums, required keys and simple bounds go."""
    return _value(schema, schema, 0)


def _value(schema: Any, root: Any, depth: int) -> Any:
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return "synthetic" if schema is True else None
    if "$ref" in schema:
        return _value(_follow(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    if "default" in schema:
        return schema["default"]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _value(schema[union][0], root, depth + 1)
    if schema.get("allOf"):
        schema = {**schema, **{key: value for part in schema["allOf"] for key, value in dict(part).items()}}
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or "properties" in schema:
        return _object(schema, root, depth)
    if kind == "array":
        count = max(1, schema.get("minItems", 1)) if depth < _MAX_DEPTH // 2 else schema.get("minItems", 0)
        return [_value(schema.get("items", True), root, depth + 1) for _ in range(count)]
    return _scalar(kind, schema)


def _object(schema: Mapping[str, Any], root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties") or {}
    required = set(schema.get("required") or ())
    # Deep in a recursive schema only what must be there is made, so that it ends.
    names = [name for name in properties if name in required or depth < _MAX_DEPTH // 2]
    return {name: _value(properties[name], root, depth + 1) for name in names}


def _scalar(kind: Any, schema: Mapping[str, Any]) -> Any:
    match kind:
        case "integer":
            return int(_bounded(schema))
        case "number":
            return _bounded(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            text = _FORMATS.get(schema.get("format", ""), "synthetic")
            text = text.ljust(schema.get("minLength", 0), ".")
            return text[: schema.get("maxLength", len(text))]


def _bounded(schema: Mapping[str, Any]) -> Any:
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", low + 2) - 1)
    return low if low > 0 else min(max(low, 1), high)


def _follow(reference: str, root: Any) -> Any:
    node = root
    for step in reference.removeprefix("#").strip("/").split("/"):
        if step:
            node = node.get(step, True) if isinstance(node, Mapping) else True
    return node
