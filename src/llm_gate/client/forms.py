"""The form of an answer as callers write it: a JSON Schema, or an example of what they want."""

from collections.abc import Mapping
from typing import Any

_TYPES: Mapping[str, str] = {
    "str": "string",
    "string": "string",
    "text": "string",
    "int": "integer",
    "integer": "integer",
    "float": "number",
    "number": "number",
    "bool": "boolean",
    "boolean": "boolean",
    "array": "array",
    "list": "array",
    "dict": "object",
    "object": "object",
    "null": "null",
}
_DECIDING = frozenset({"$ref", "allOf", "anyOf", "const", "enum", "items", "oneOf", "properties"})
_KEYWORDS = _DECIDING | {
    "$defs",
    "$id",
    "$schema",
    "additionalProperties",
    "default",
    "definitions",
    "description",
    "example",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "pattern",
    "patternProperties",
    "prefixItems",
    "propertyOrdering",
    "required",
    "title",
    "type",
    "uniqueItems",
}


def schema_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema that a form stands for.

    A mapping in which only words of JSON Schema stand is one; types in capitals are understood. Anything else is an
    example: its values say what is wanted by a type's name (`"integer"`), a type (`int`) or a value of that type; a
    list says by its first item what it holds, and other text describes a text. All of it is required.
    """
    if _is_schema(form):
        return {name: _lowered(name, value) for name, value in form.items()}
    return {
        "type": "object",
        "properties": {str(name): _shape(value) for name, value in form.items()},
        "required": [str(name) for name in form],
        "additionalProperties": False,
    }


def _is_schema(form: Mapping[str, Any]) -> bool:
    if form.keys() - _KEYWORDS:
        return False
    kind = form.get("type")
    names = kind if isinstance(kind, list) else [kind]
    is_typed = all(isinstance(name, str) and name.lower() in _TYPES.values() for name in names)
    return is_typed or bool(form.keys() & _DECIDING)


def _lowered(name: str, value: Any) -> Any:
    """Return a schema's part with its types in small letters."""
    if name == "type" and isinstance(value, str):
        return value.lower() if value.lower() in _TYPES.values() else value
    if name in {"enum", "const", "default", "example", "examples"}:
        return value
    if name in {"properties", "$defs", "definitions"} and isinstance(value, Mapping):
        # What stands here are names of fields and of schemas, whatever they are called.
        return {key: _lowered("", each) for key, each in value.items()}
    if isinstance(value, Mapping):
        return {key: _lowered(key, each) for key, each in value.items()}
    return [_lowered("", each) for each in value] if isinstance(value, list) else value


def _shape(value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return schema_of(value)
    if isinstance(value, list | tuple):
        return {"type": "array", "items": _shape(value[0])} if value else {"type": "array"}
    if isinstance(value, str) and value.lower() not in _TYPES:
        return {"type": "string", "description": value} if value else {"type": "string"}
    if value is None:
        return {}
    name = value if isinstance(value, str) else getattr(value, "__name__", type(value).__name__)
    if name.lower() not in _TYPES:
        raise TypeError(f"json_struct: {value!r} says nothing of what is wanted")
    return {"type": _TYPES[name.lower()]}
