"""`llm-gate cache` beside a running gateway: it shows what is kept, and what it throws away nobody gets any more."""

import asyncio
import itertools
import json
import time
from contextlib import ExitStack

import aiohttp
import pytest

from support.cached_gateway import ask, settings_of, vendor
from support.forking import clean_environment, run_command
from support.gateway import running_gateway
from support.office import Desk
from support.servers import private_redis
from support.upstream import fake_upstream


def command(gateway, environment, *words):
    """Run `llm-gate cache ...` on the store of a gateway."""
    done = run_command(
        "cache",
        *words,
        "--data-dir",
        str(gateway.folder / "data"),
        "--no-env-file",
        folder=gateway.folder,
        environment=clean_environment(environment),
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout


@pytest.mark.parametrize("shared", ["sqlite", "redis"])
def test_what_is_thrown_away_is_paid_for_again(shared):
    """`stats` counts by tenant; within a second or so of `clear`, a gateway gives none of that tenant's answers."""

    async def asked(url, *keys):
        async with aiohttp.ClientSession() as session:
            return [(await ask(session, url, key, "What is 7?"))[1] for key in keys]

    with ExitStack() as stack:
        upstream, serial = stack.enter_context(fake_upstream()), itertools.count()
        upstream.next_answer = lambda seen: vendor(seen, serial)
        environment = {"SECOND_API_KEY": "second-fake-0123456789"}
        if shared == "redis":
            environment["LLM_GATE_REDIS_URL"] = stack.enter_context(private_redis()).url
        toml = settings_of(upstream.url, exact=True, semantic=True, model="second/e")
        gateway = stack.enter_context(running_gateway(environment, toml=toml))
        desk = Desk(gateway)
        one, other = desk.key_for("one"), desk.key_for("other")
        # Of each, the answer and the vector of its question.
        assert asyncio.run(asked(gateway.url, one, other, one)) == ["miss", "miss", "hit"]
        Desk.until(lambda: command(gateway, environment, "stats", "--json")["entries"] == 4)
        shown = command(gateway, environment, "stats", "--tenant", "one")
        cleared = command(gateway, environment, "clear", "--tenant", "one", "--yes", "--json")
        time.sleep(1.1)
        words = asyncio.run(asked(gateway.url, one, other))
    assert shown.startswith("2 answers, 1 of them by meaning, 0.0 MiB, the oldest from 20")
    assert cleared == {"cleared": 2}
    assert words == ["miss", "hit"]


def test_it_asks_before_it_throws_everything_away(tmp_path):
    """Without `--yes` a word is asked for, and another than yes leaves everything as it is."""
    words = ["cache", "clear", "--data-dir", str(tmp_path), "--no-env-file"]
    ends = [
        run_command(*words, folder=tmp_path, environment=clean_environment(), text=said)
        for said in ("n\n", "y\n")
    ]
    assert [(done.returncode, done.stdout) for done in ends] == [(1, ""), (0, "0 answers thrown away\n")]
    assert all("of all tenants" in done.stderr for done in ends)


def test_a_redis_that_is_away_is_told(tmp_path):
    """Where Redis is the store and does not answer, the command fails and says so, and shows no address."""
    address = "redis://:very-secret@127.0.0.1:1/0"
    done = run_command(
        "cache",
        "stats",
        "--data-dir",
        str(tmp_path),
        "--no-env-file",
        folder=tmp_path,
        environment=clean_environment({"LLM_GATE_REDIS_URL": address}),
    )
    assert done.returncode == 1
    assert done.stderr.strip().endswith("llm-gate: Redis does not answer")
    assert "secret" not in done.stderr
