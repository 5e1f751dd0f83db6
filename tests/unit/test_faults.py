"""Promises of the walk that lists every fault of a value."""

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta, Raw, Struct, field

from llm_gate.domain.faults import find_faults


class Leaf(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=1)]
    size: Annotated[int, Meta(ge=1, le=9)] | None = None


class Circle(Struct, tag="circle", tag_field="kind"):
    radius: float


class Square(Struct, tag="square", tag_field="kind", forbid_unknown_fields=True):
    side: int


class Tree(Struct, forbid_unknown_fields=True, rename="camel"):
    title: str
    mode: Literal["a", "b"] = "a"
    leaves: list[Leaf] = []
    by_name: Mapping[str, Leaf] = {}
    content: str | list[Leaf] = ""
    best: Leaf | None = None
    pair: tuple[int, str] | None = None
    marks: tuple[int, ...] = ()
    shape: Circle | Square | None = None
    count: Annotated[int, Meta(ge=0)] | None = None
    wire_name: str = field(default="", name="X-Wire")


def found(value, path=""):
    return [(fault.path, fault.message) for fault in find_faults(value, Tree, path)]


@pytest.mark.parametrize(
    "value",
    [
        {"title": "t"},
        {"title": "t", "leaves": [{"name": "n", "size": 3}], "byName": {"x": {"name": "n"}}, "best": None},
        {"title": "t", "content": "c", "pair": [1, "x"], "marks": [1, 2, 3], "X-Wire": "w"},
        {"title": "t", "content": [{"name": "n"}], "shape": {"kind": "square", "side": 2}, "count": 0},
    ],
)
def test_what_converts_has_no_faults(value):
    """A value that converts has none."""
    assert found(value) == []
    assert isinstance(msgspec.convert(value, Tree), Tree)


def test_every_fault_is_listed():
    """All faults come at once, each with its wire path."""
    assert found(
        {
            "mode": "c",
            "leaves": [{"name": ""}, {"name": "n", "size": 10}, {"size": 0}, 5],
            "byName": {"x": {}, "y": {"name": "n", "colour": 1}},
            "best": {"name": 1},
            "X-Wire": 1,
            "extra": True,
        }
    ) == [
        ("extra", "unknown field"),
        ("title", "required field is missing"),
        ("mode", "invalid enum value 'c'"),
        ("leaves[0].name", "expected `str` of length >= 1"),
        ("leaves[1].size", "expected `int` <= 9"),
        ("leaves[2].name", "required field is missing"),
        ("leaves[2].size", "expected `int` >= 1"),
        ("leaves[3]", "expected `object`, got `int`"),
        ("byName.x.name", "required field is missing"),
        ("byName.y.colour", "unknown field"),
        ("best.name", "expected `str`, got `int`"),
        ("X-Wire", "expected `str`, got `int`"),
    ]


@pytest.mark.parametrize(
    ("part", "faults"),
    [
        ({"content": 5}, [("content", "expected `str | array`, got `int`")]),
        ({"content": [{"name": ""}]}, [("content[0].name", "expected `str` of length >= 1")]),
        ({"best": []}, [("best", "expected `object | null`, got `array`")]),
        ({"leaves": {}}, [("leaves", "expected `array`, got `object`")]),
        ({"byName": []}, [("byName", "expected `object`, got `array`")]),
        (
            {"marks": [1, "x", 2.5]},
            [("marks[1]", "expected `int`, got `str`"), ("marks[2]", "expected `int`, got `float`")],
        ),
        ({"pair": [1]}, [("pair", "expected `array` of length 2, got 1")]),
        ({"pair": ["x", 1]}, [("pair", "expected `int`, got `str`")]),
        ({"count": -1}, [("count", "expected `int` >= 0")]),
        ({"shape": {"kind": "square", "side": "x"}}, [("shape.side", "expected `int`, got `str`")]),
        ({"shape": {"kind": "square", "side": 1, "a": 1}}, [("shape.a", "unknown field")]),
        ({"shape": {"kind": "circle"}}, [("shape.radius", "required field is missing")]),
        ({"shape": {"kind": "star"}}, [("shape", "invalid value 'star'")]),
        ({"title": None}, [("title", "expected `str`, got `null`")]),
    ],
)
def test_faults_by_type(part, faults):
    """Unions, tagged records, arrays, mappings and constraints are judged each in their own terms."""
    assert found({"title": "t", **part}) == faults


@pytest.mark.parametrize("value", [None, 5, "x", [], True])
def test_what_is_no_object_is_one_fault(value):
    """Something that is no object at all is one fault at the given place."""
    assert [path for path, _ in found(value, "body")] == ["body"]


def test_paths_start_where_the_caller_says():
    """The given path stands before every other."""
    assert found({"leaves": [{}]}, "file") == [
        ("file.title", "required field is missing"),
        ("file.leaves[0].name", "required field is missing"),
    ]


class Loose(Struct):
    schema: Raw
    number: int = 0
    inner: "Loose | None" = None


@pytest.mark.parametrize("value", [None, 5, "x", [], {"a": 1}])
def test_raw_json_takes_anything(value):
    """A field that keeps raw JSON has no faults, and hides none beside it."""
    assert find_faults({"schema": value, "inner": {"schema": value}}, Loose) == []
    found_paths = [
        fault.path for fault in find_faults({"schema": value, "number": "x", "inner": {"number": 1.5}}, Loose)
    ]
    assert found_paths == ["number", "inner.schema", "inner.number"]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 20) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "size", "kind", "side", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([one.encode_name for one in msgspec.structs.fields(Tree)] + ["extra"])


@given(value=st.dictionaries(KEYS, PLAIN, max_size=6))
def test_faults_are_found_exactly_when_conversion_fails(value):
    """The walk and the converter agree about whether there is any fault."""
    try:
        msgspec.convert(value, Tree)
    except msgspec.ValidationError:
        assert found(value)
    else:
        assert found(value) == []
