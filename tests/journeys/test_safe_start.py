"""A gateway starts only where it is safe, says why not, and gives no key away by what it keeps or how long it takes."""

import asyncio
import base64
import random
import shutil
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from itertools import product
from secrets import token_bytes
from statistics import fmean, quantiles, variance
from time import perf_counter_ns

import psycopg
import pytest

from llm_gate.cli.store import new_id, now_ms
from llm_gate.domain.errors import NotAuthenticated
from llm_gate.domain.keys import RANDOM_BYTES, key_text
from llm_gate.engine.access import Access, AccessRules
from llm_gate.engine.keys import KeyRequest, Keys
from support.figures import PROVES, full, proved
from support.gateway import COMMAND, clean_environment, running_gateway
from support.issued import issuer_at, mistyped, places
from support.office import bearer
from support.stores import postgresql_address, postgresql_name
from support.web import call

PEPPER = "a pepper for tests, 0123456789abcdef"
OPERATORS = "operators-own-key-0123456789"


def serve(folder, *arguments, **environment):
    """Try to start a gateway that must not start; return its exit code and what it says."""
    done = subprocess.run(
        [COMMAND, "serve", "--port", "0", "--data-dir", str(folder), "--no-env-file", *arguments],
        cwd=folder,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# --- Where it listens, and who may call

BINDS = {"127.0.0.1": True, "127.8.8.8": True, "0.0.0.0": False, "::1": True, "::": False}
"""Addresses to listen on, and whether they reach no further than this machine."""


def can_bind(host):
    """Tell whether this machine has an address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe, suppress(OSError):
        probe.bind((host, 0))
        return True
    return False


KEYS = ("no key", "a key", "a revoked key")
SOME = [("127.8.8.8", "no key", None), *(("0.0.0.0", keys, None) for keys in KEYS)]
# The whole matrix takes as many starts as it has rows.
ROWS = list(product(filter(can_bind, BINDS), KEYS, (None, "", OPERATORS))) if PROVES else SOME


@proved
def test_it_starts_only_where_somebody_must_show_a_key(tmp_path):
    """Elsewhere than on this machine's own addresses a key has to be there first; where one is, it is asked for."""
    prepared = [_prepare(tmp_path / str(number), keys) for number, (_, keys, _) in enumerate(ROWS)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(_start, prepared, ROWS))


def _prepare(folder, keys):
    """Make a data folder; return it with the key that works there, if any."""
    folder.mkdir()
    if keys == "no key":
        return folder, None
    with issuer_at(folder) as issuer:
        issued = issuer.issue("inference")
        if keys == "a key":
            return folder, issued.text.reveal()
        issuer.revoke(issued)
    return folder, None


def _start(prepared, row):
    folder, key = prepared
    bind, keys, operators = row
    environment = {} if operators is None else {"LLM_GATE_API_KEY": operators}
    if not BINDS[bind] and keys == "no key" and not operators:
        code, said = serve(folder, "--host", bind, **environment)
        assert code == 2, (row, said)
        assert f"refusing to listen on {bind}" in said, row
        assert "llm-gate keys create" in said, row
        assert "LLM_GATE_API_KEY" in said, row
        return
    where = ("--host", bind, "--data-dir", str(folder))
    with running_gateway(environment, arguments=where, installed=True) as gateway:
        is_open = keys == "no key" and not operators
        assert call(gateway.url, "/v1/models").status == (200 if is_open else 401), row
        assert call(gateway.url, "/llm-gate/docs").status == (200 if is_open else 401), row
        assert call(gateway.url, "/healthz").status == 200, row
        for right in filter(None, (key, operators)):
            assert call(gateway.url, "/v1/models", headers=bearer(right)).status == 200, row


# --- The pepper


def test_without_the_right_pepper_it_does_not_start(tmp_path):
    """Missing, lost, readable by others or of another store: told at the start, with what to do."""
    with issuer_at(tmp_path / "made") as issuer:
        issuer.key("inference")

    def folder_with(name, spoil):
        folder = shutil.copytree(tmp_path / "made", tmp_path / name)
        spoil(folder / "pepper")
        return folder

    def readable(path):
        path.chmod(0o644)

    def replaced(path):
        path.write_text("c" * 40)

    with postgresql_name() as name, ThreadPoolExecutor(3) as pool:
        address = postgresql_address(name)
        with issuer_at(tmp_path, database_url=address, pepper=PEPPER) as issuer:
            issuer.key("inference")
        store = {"LLM_GATE_DATABASE_URL": address}
        cases = [
            (folder_with("readable", readable), {}, 1, "chmod 600"),
            (folder_with("gone", lambda path: path.unlink()), {}, 1, "is gone"),
            (folder_with("replaced", replaced), {}, 1, "is not the one"),
            (tmp_path, store, 2, "needs LLM_GATE_PEPPER"),
            (tmp_path, {**store, "LLM_GATE_PEPPER": "e" * 40}, 1, "is not the one"),
        ]
        started = pool.map(lambda case: serve(case[0], **case[1]), cases)
        for (_, _, code, words), (found, said) in zip(cases, started, strict=True):
            assert (found, words in said) == (code, True), said
            assert "Traceback" not in said
            assert not any(secret * 30 in said for secret in "cde"), said


# --- What is kept


def disguises(text):
    """Return what a text looks like in a dump: as it is, in hexadecimal, in base64 at any place."""
    data = text.encode()
    found = {data, data.hex().encode(), data.hex().upper().encode(), data[::-1]}
    for shift in range(3):
        coded = base64.b64encode(bytes(shift) + data)
        # The first and the last four letters depend on what stands beside.
        found |= {coded[4:-4], coded[4:-4].replace(b"+", b"-").replace(b"/", b"_")}
    return found


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_no_dump_of_the_store_holds_a_key(tmp_path, kind):
    """Neither the whole key nor its secret part, after it was issued, used, rotated, mistyped and revoked."""
    with postgresql_name() as name:
        address = postgresql_address(name) if kind == "postgresql" else None
        environment = {"LLM_GATE_PEPPER": PEPPER}
        if address is not None:
            environment["LLM_GATE_DATABASE_URL"] = address
        data = ("--data-dir", str(tmp_path))
        with (
            running_gateway(environment, arguments=data) as gateway,
            issuer_at(tmp_path, database_url=address, pepper=PEPPER) as issuer,
        ):
            issued = issuer.issue("inference", "admin", "operator", "usage:read")
            old, new = issuer.rotated("inference", overlap_s=3600)
            keys = [issued.text.reveal(), old, new]
            while call(gateway.url, "/v1/models", headers=bearer(new)).status != 200 or (
                call(gateway.url, "/v1/models").status != 401
            ):
                pass
            for key in keys:
                body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hi"}]}
                for headers in (bearer(key), bearer(mistyped(key)), bearer(key, **{"Idempotency-Key": "k"})):
                    call(gateway.url, "/v1/chat/completions", body, headers)
            made = call(
                gateway.url, "/llm-gate/admin/v1/keys", {"client_id": "shop"}, bearer(issued.text.reveal())
            )
            keys.append(made.json["key"])
            issuer.revoke(issued)
            log = "".join(gateway.log).encode()
        dumps = [log, *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())]
        if address is not None:
            dumps.append(_dump(address))
    whole = b"\n".join(dumps)
    # What is kept to tell keys apart is there, so that the search sees what it is meant to see.
    assert all(key[:12].encode() in whole for key in keys)
    parts = [part for key in keys for part in (key, key[12:])]
    leaks = [(part, form) for part in parts for form in disguises(part) if form in whole]
    assert leaks == []
    planted = base64.b64encode(b"before " + keys[0].encode() + b" after")
    assert any(form in planted for form in disguises(keys[0]))


def _dump(address):
    """Return every row of every table as text; bytes appear in hexadecimal."""
    with psycopg.connect(address) as connection:
        names = connection.execute(
            "SELECT quote_ident(table_name) FROM information_schema.tables WHERE table_schema = 'public'"
        ).fetchall()
        rows = [
            row[0]
            for (name,) in names
            for row in connection.execute(f"SELECT each::text FROM {name} AS each").fetchall()  # noqa: S608 - ours
        ]
    assert len(rows) > 10
    return "\n".join(rows).encode()


# --- How long it takes

ATTEMPTS = full(2_000, 100_000)
MOST_T = 4.5


BASE = token_bytes(RANDOM_BYTES)


def alike():
    """Return a key that never was, right in its form, with the first twenty characters of the one that is."""
    return key_text(BASE[:-8] + token_bytes(8))


def unlike():
    """Return another that was never issued."""
    return key_text(token_bytes(RANDOM_BYTES))


def operators_alike():
    """Return what only ends otherwise than the operator's key."""
    return OPERATORS[:-6] + token_bytes(3).hex()


def operators_unlike():
    """Return a text as long as the operator's key."""
    return token_bytes(len(OPERATORS)).hex()[: len(OPERATORS)]


@proved
@pytest.mark.parametrize(
    ("near", "far"), [(alike, unlike), (operators_alike, operators_unlike)], ids=["issued", "operator's"]
)
def test_time_tells_nothing_of_a_key(tmp_path, near, far):
    """Refusing what is nearly a key takes as long as refusing anything: Welch's t over attempts in random order."""

    async def scenario(store):
        keys = Keys(
            administration=store.administration,
            key_hash=store.pepper.key_hash,
            now_ms=now_ms,
            new_id=new_id,
            randomness=lambda _: BASE,
        )
        issued = (await keys.issue(KeyRequest(application="demo"))).text.reveal()
        rules = AccessRules(operator_digest=sha256(OPERATORS.encode()).digest())
        access = Access(directives=store.directives, digest=store.pepper.key_hash, rules=rules, now_ms=now_ms)
        await access.start()
        assert (await access.authenticate(issued, "here")).application == "demo"
        place = places()
        texts = {"near": [near() for _ in range(200)], "far": [far() for _ in range(200)]}
        for text in (*texts["near"], *texts["far"]):
            with pytest.raises(NotAuthenticated):
                await access.authenticate(text, place())
        took_ns = {"near": [], "far": []}
        rng = random.Random(4)  # noqa: S311 - to be the same again
        for number in range(ATTEMPTS):
            kind = rng.choice(("near", "far"))
            text, origin = rng.choice(texts[kind]), f"10.{number}"
            began_ns = perf_counter_ns()
            try:
                await access.authenticate(text, origin)
            except NotAuthenticated:
                took_ns[kind].append(perf_counter_ns() - began_ns)
        await access.close()
        return took_ns

    with issuer_at(tmp_path) as issuer:
        took_ns = asyncio.run(scenario(issuer.store))
    assert sum(map(len, took_ns.values())) == ATTEMPTS
    t = welch_t(took_ns["near"], took_ns["far"])
    print(ATTEMPTS, "attempts, t =", round(t, 2))  # noqa: T201 - shown by -rP
    if PROVES:
        assert abs(t) < MOST_T


def welch_t(one, other):
    """Return Welch's t of two samples, without the slowest tenth of both, which other processes make."""
    most = quantiles(one + other, n=10)[-1]
    one, other = ([each for each in sample if each <= most] for sample in (one, other))
    spread = variance(one) / len(one) + variance(other) / len(other)
    return (fmean(one) - fmean(other)) / spread**0.5


def test_the_measure_sees_what_there_is_to_see():
    """Two samples that differ by a twentieth of their spread are told apart at the full number of attempts."""
    rng = random.Random(1)  # noqa: S311 - to be the same again
    even, slower = ([rng.gauss(mean, 1.0) for _ in range(50_000)] for mean in (10.0, 10.05))

    assert abs(welch_t(even[:25_000], even[25_000:])) < MOST_T < abs(welch_t(slower, even))
