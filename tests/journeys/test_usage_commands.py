"""`llm-gate usage` and `llm-gate ledger check` on a store, as scripts and people use them."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from sqlalchemy import insert

from llm_gate.domain.windows import milliseconds
from llm_gate.storage.database import open_sqlite
from llm_gate.storage.migrate import prepare
from llm_gate.storage.schema import attempt, balance, usage_record, usage_summary
from support.forking import clean_environment, run_command

MADE_MS = milliseconds(datetime(2026, 11, 3, 12, 0, tzinfo=UTC))
USERS = {"ann": 2, "=1+2": 1, "@x": 1, "-m": 1, "\u001b[31mred": 1, "plain, with comma": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Make a store with a few calls of users with odd names, each of a tenth of a dollar and one nano-dollar."""
    folder = tmp_path_factory.mktemp("usage")
    database = open_sqlite(folder)
    prepare(database)

    def fill(connection):
        for number, user in enumerate(user for user, count in USERS.items() for _ in range(count)):
            add_call(connection, f"call{number}", user)

    database.change(fill)
    database.close()
    return folder


def add_call(connection, call_id, user):
    """Write one call with its attempt and its part of the day's sums."""
    common = {"cost_nanos": 100_000_001, "provider": "second", "model": "m"}
    counts = {"input_tokens": 1000, "output_tokens": 10}
    connection.execute(
        insert(usage_record).values(
            id=call_id, tenant="default", application="shop", user_id=user, request_id="r", operation="chat",
            bucket="text", endpoint="/v1/chat/completions", plan="free", status="ok", quality="measured",
            made_ms=MADE_MS, ended_ms=MADE_MS + 5, attempts=1, count=1, tokens=1010, synthetic=False,
            charges=json.dumps([["user:default/ann|text_calls|0", 0, 1]]) if user == "ann" else "[]",
            **common, **counts,
        )
    )  # fmt: skip
    connection.execute(
        insert(attempt).values(
            record_id=call_id, number=1, status="ok", quality="measured", started_ms=MADE_MS,
            ended_ms=MADE_MS + 5, units=json.dumps(counts), tokens=1010, prices="[]", synthetic=False, **common,
        )
    )  # fmt: skip
    # One row a call: an application's name each, so that no two rows have the same key.
    connection.execute(
        insert(usage_summary).values(
            tenant="default", user_id=user, day="2026-11-03", application=call_id, bucket="text", requests=1,
            attempts=1, failures=0, unpriced=0, duration_ms=5, **common, **counts,
        )
    )  # fmt: skip


def run(folder, *arguments):
    """Run a command on the store."""
    return run_command(
        *arguments, "--data-dir", str(folder), "--no-env-file", folder=folder, environment=clean_environment()
    )


def test_usage_prints_what_scripts_read(folder):
    """The sums of one user, exact, with those of each provider."""
    found = json.loads(run(folder, "usage", "--user", "ann", "--json", "--by", "day").stdout)

    assert (found["user"], found["requests"], found["attempts"], found["cost_nanos"]) == (
        "ann",
        2,
        2,
        200_000_002,
    )
    assert found["by_provider"] == {
        "second": {
            "requests": 2,
            "attempts": 2,
            "failures": 0,
            "input_tokens": 2000,
            "output_tokens": 20,
            "cost_nanos": 200_000_002,
            "cost_usd": 0.200000002,
            "unpriced_attempts": 0,
        }
    }
    assert list(found["by_day"]) == ["2026-11-03"]


def test_times_narrow_usage(folder):
    """From a time on, up to but without another; the part of a day counts, too."""
    span = ("--since", "2026-11-03T11:00", "--until", "2026-11-03T12:00:00.001Z")

    assert json.loads(run(folder, "usage", "--json", *span).stdout)["requests"] == 7
    assert json.loads(run(folder, "usage", "--json", "--since", "2026-12").stdout)["requests"] == 0
    refused = run(folder, "usage", "--since", "yesterday")
    assert refused.returncode == 2
    assert "2026-11-21T08:30:00Z" in refused.stderr


def test_csv_is_harmless_in_a_spreadsheet(folder):
    """Cells that would be formulas are texts; every row has the same columns, and the sums are all there."""
    text = run(folder, "usage", "--by", "user", "--csv").stdout
    rows = list(csv.DictReader(io.StringIO(text)))

    assert {row["user"] for row in rows} == {
        "ann",
        "'=1+2",
        "'@x",
        "'-m",
        "\u001b[31mred",
        "plain, with comma",
    }
    assert sum(int(row["cost_nanos"]) for row in rows) == 700_000_007
    assert next(row for row in rows if row["user"] == "ann")["cost_usd"] == "0.200000002"
    assert run(folder, "usage", "--csv", "--json").returncode == 2


def test_the_table_obeys_nobody(folder):
    """People see a table with a total; what a terminal would obey is not printed."""
    lines = run(folder, "usage", "--by", "user").stdout.splitlines()

    assert lines[0].split()[:2] == ["USER", "REQUESTS"]
    assert lines[-1].split()[0] == "total"
    assert lines[-1].endswith("0.700000007")
    assert "\u001b" not in "".join(lines)


def test_a_drift_is_found_and_told(folder):
    """A balance that its records do not explain makes the check fail, for people and for scripts."""
    place = {"account": "user:default/ann|text_calls|0", "start_ms": 0, "end_ms": 1, "held": 0, "seeded": 0}
    database = open_sqlite(folder)
    database.change(lambda connection: connection.execute(insert(balance).values(used=2, **place)))

    sound = run(folder, "ledger", "check", "--json")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert json.loads(sound.stdout)["drift_nanos"] == 0
    assert json.loads(sound.stdout)["open_reservations"] == 0

    database.change(lambda connection: connection.execute(balance.update().values(used=3)))
    database.close()
    drifted = run(folder, "ledger", "check")
    assert drifted.returncode == 1
    assert "user:default/ann|text_calls|0" in drifted.stdout
