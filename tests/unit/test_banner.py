"""What the gateway says of itself when it is ready: who may call, on which plan, and where the data is."""

from pathlib import Path

import pytest

from llm_gate.bootstrap import load_directory
from llm_gate.domain.secret import Secret
from llm_gate.http.banner import banner
from llm_gate.settings import Settings
from llm_gate.settings.records import PlanSettings, ServerSettings


def lines(*, has_keys=False, **settings):
    chosen = Settings(**settings)
    text = banner(chosen, load_directory(chosen), port=8080, has_keys=has_keys)
    return {
        line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines()[1:] if line.strip()
    }, text


def test_who_may_call_and_on_which_plan():
    """The banner tells local mode from one that needs a key, and names the plan of whoever has none."""
    local, _ = lines()
    keyed, text = lines(has_keys=True, plans=PlanSettings(default="free"))
    operators, _ = lines(api_key=Secret("k" * 32))

    assert local["access"].startswith("local mode")
    assert local["plans"] == "default plan 'unlimited' for users without a subscription"
    assert keyed["access"].startswith("callers must send a key")
    assert keyed["plans"] == "default plan 'free' for users without a subscription"
    assert "Authorization: Bearer" in text
    assert "LLM_GATE_API_KEY" in operators["access"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (None, f"SQLite in {Path('somewhere').absolute()}"),
        (
            "postgresql://someone:hushhush@db.example:6543/gate?sslmode=require",
            "PostgreSQL at db.example:6543/gate",
        ),
        ("postgresql://someone:hushhush@/gate", "PostgreSQL at localhost/gate"),
        ("postgresql://someone:hushhush@db:port/gate", "PostgreSQL"),
    ],
)
def test_where_the_data_is(url, shown):
    """The folder or the database is named, without anybody's name or password."""
    server = ServerSettings(data_dir=Path("somewhere"))
    said, text = lines(server=server, database_url=None if url is None else Secret(url))

    assert said["store"] == shown
    assert "hushhush" not in text
    assert "someone" not in text


@pytest.mark.parametrize(
    ("workers", "url", "is_said"), [(4, None, False), (5, None, True), (5, "postgresql://h/d", False)]
)
def test_many_processes_want_a_database_server(workers, url, is_said):
    """More than four processes on SQLite are recommended PostgreSQL."""
    server = ServerSettings(workers=workers)
    _, text = lines(server=server, database_url=None if url is None else Secret(url))

    assert ("PostgreSQL is better" in text) is is_said
