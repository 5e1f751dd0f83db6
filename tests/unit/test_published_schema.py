"""The published JSON Schema of llm-gate.toml says what the loader does."""

import json
import tomllib
from pathlib import Path

import jsonschema_rs
import pytest

from llm_gate.settings.published import config_schema

PUBLISHED = Path(__file__).parents[2] / "docs" / "llm-gate.schema.json"

GOOD = """
[server]
port = 9000
[timeouts]
idle_s = 30
[logging]
level = "DEBUG"
[providers.second]
dialect = "openai"
base_url = "http://127.0.0.1:9000/v1"
auth = { kind = "bearer", env = "SECOND_API_KEY" }
[[providers.second.models]]
name = "m"
operations = ["chat"]
prices = [ { unit = "input_tokens", per = 1_000_000, usd = "0.15" } ]
[aliases.best]
targets = ["openai/gpt-4o-mini", "second/m"]
"""


def test_the_committed_file_is_up_to_date():
    """docs/llm-gate.schema.json is what `llm-gate schema` prints."""
    assert json.loads(PUBLISHED.read_text(encoding="utf-8")) == json.loads(json.dumps(config_schema()))


def test_a_good_file_fits():
    """The contract's own example is valid."""
    assert jsonschema_rs.is_valid(config_schema(), tomllib.loads(GOOD))


@pytest.mark.parametrize(
    "bad",
    [
        "[server]\nport = 70000",
        "[nothing]",
        '[providers.x]\ncolour = "red"',
        "[aliases.a]\ntargets = []",
        '[[providers.x.models]]\nname = "m"\noperations = ["sing"]',
        "[timeouts]\nidle_s = 0",
    ],
)
def test_a_bad_file_does_not(bad):
    """What the loader refuses, the schema refuses."""
    assert not jsonschema_rs.is_valid(config_schema(), tomllib.loads(bad))
