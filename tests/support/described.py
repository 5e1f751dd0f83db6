"""OpenAI's own description of its API as a referee, read from ../shared/openapi where that folder stands."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

_FILE = Path(__file__).resolve().parents[2].parent / "shared" / "openapi" / "openai-openapi.json"
REASON = "OpenAI's description is not beside the project (../shared/openapi)"
needs_description = pytest.mark.skipif(not _FILE.is_file(), reason=REASON)

# Null in OpenAI's own answers (see ../shared/recorded), though its description has no null there.
_NULL_IN_PRACTICE = ("usage", "user")


@cache
def _document() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


@cache
def _validator(schema: str) -> jsonschema_rs.Draft202012Validator:
    whole = {"$ref": f"#/components/schemas/{schema}", "components": _document()["components"]}
    return jsonschema_rs.Draft202012Validator(whole)


@cache
def _event_schemas() -> dict[str, str]:
    schemas = _document()["components"]["schemas"]
    members = [one["$ref"].rpartition("/")[2] for one in schemas["ResponseStreamEvent"]["anyOf"]]
    return {schemas[name]["properties"]["type"]["enum"][0]: name for name in members}


def assert_described(document: Any, schema: str) -> None:
    """Check a document against one schema of the description; without the description, check nothing."""
    if _FILE.is_file():
        faults = [
            f"{error.instance_path}: {error.message}" for error in _validator(schema).iter_errors(document)
        ]
        assert faults == []


def assert_response(response: Any) -> None:
    """Check a response object."""
    assert_described(_in_practice(response), "Response")


def assert_events(events: list[Any]) -> None:
    """Check every event of a streamed response, and that their numbers count up from 0."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    if not _FILE.is_file():
        return
    for event in events:
        inner = {"response": _in_practice(event["response"])} if "response" in event else {}
        assert_described({**event, **inner}, _event_schemas()[event["type"]])


def _in_practice(response: Any) -> Any:
    return {
        key: value for key, value in response.items() if value is not None or key not in _NULL_IN_PRACTICE
    }
