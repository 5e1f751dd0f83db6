"""The form of an answer: a JSON Schema as it is, or an example that one is made of."""

import msgspec
import pytest

from llm_gate.client.forms import schema_of
from llm_gate.schemas import SchemaChecks


def required(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"type": "array", "items": {"type": "integer"}},
        {"type": ["string", "null"]},
        {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object"}}},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"enum": ["OBJECT", "STRING"]},
    ],
)
def test_a_schema_stays_as_it_is(schema):
    """What only words of JSON Schema stand in is one."""
    assert schema_of(schema) == schema


def test_types_in_capitals_are_understood():
    """Types may be written in capitals; what may be said in an answer is not touched."""
    fields = {
        "type": {"type": "STRING", "enum": ["STRING"]},
        "default": {"type": "ARRAY", "items": {"type": "NUMBER"}},
    }
    small = {
        "type": {"type": "string", "enum": ["STRING"]},
        "default": {"type": "array", "items": {"type": "number"}},
    }

    assert schema_of({"type": "OBJECT", "properties": fields}) == {"type": "object", "properties": small}


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        ("string", {"type": "string"}),
        ("integer", {"type": "integer"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (True, {"type": "boolean"}),
        (3, {"type": "integer"}),
        (0.5, {"type": "number"}),
        ("", {"type": "string"}),
        ("one sentence", {"type": "string", "description": "one sentence"}),
        (None, {}),
        ([], {"type": "array"}),
        (["string"], {"type": "array", "items": {"type": "string"}}),
        ([{"a": int}], {"type": "array", "items": required(a={"type": "integer"})}),
        ({"type": "string", "enum": ["a", "b"]}, {"type": "string", "enum": ["a", "b"]}),
        ({"a": {"b": "number"}}, required(a=required(b={"type": "number"}))),
    ],
)
def test_an_example_says_what_is_wanted(value, shape):
    """Names of types, types, and values of them say what a field holds; all of it is required."""
    assert schema_of({"field": value}) == required(field=shape)


def test_a_field_may_be_called_type():
    """A field's name does not make an example a schema."""
    assert schema_of({"type": "string", "name": "string"}) == required(
        type={"type": "string"}, name={"type": "string"}
    )
    assert schema_of({"title": "string", "description": "string"})["required"] == ["title", "description"]


def test_what_says_nothing_is_refused():
    """A value that is no type and no example is refused."""
    with pytest.raises(TypeError, match="says nothing"):
        schema_of({"a": 1j})


def test_every_schema_that_is_made_can_be_used():
    """The schema of an example refuses what does not look like it."""
    schema = msgspec.json.encode(schema_of({"city": "string", "inhabitants": int, "names": ["string"]}))
    check = SchemaChecks()

    assert check(schema, {"city": "Oslo", "inhabitants": 7, "names": []}) == []
    assert check(schema, {"city": "Oslo", "inhabitants": "many", "names": []}) != []
    assert check(schema, {"city": "Oslo"}) != []
