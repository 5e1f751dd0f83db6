"""What the operator does to keys, on every process of every gateway of one database, within a second."""

import http.client
import random
import time
from contextlib import contextmanager
from statistics import median
from urllib.parse import urlsplit

import pytest

from support.figures import PROVES, full, proved
from support.gateway import running_gateway
from support.issued import issuer_at
from support.office import bearer
from support.stores import postgresql_address, postgresql_name
from support.web import call

PEPPER = "a pepper for tests, 0123456789abcdef"
WORKERS = 3
ROUNDS = full(2, 40)
_WITHIN_S = 10.0


class Line:
    """A connection that stays with one process."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=15)
        self.process = self.ask(None)[1]

    def ask(self, key):
        """Return the status, and the part of the request id that names the process."""
        self._connection.request("GET", "/v1/models", headers=bearer(key) if key else {})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status, answer.headers["x-request-id"][4:20]

    def until(self, key, status):
        """Wait until a key gets a status."""
        end = time.monotonic() + _WITHIN_S
        while (found := self.ask(key)[0]) != status:
            assert time.monotonic() < end, f"{found} instead of {status}"
            time.sleep(0.01)

    def close(self):
        """Hang up."""
        self._connection.close()


@contextmanager
def lines_to(url, processes):
    """Open connections until there is one to each process, and keep that one."""
    lines = {}
    end = time.monotonic() + 30
    try:
        while len(lines) < processes:
            assert time.monotonic() < end, f"only {len(lines)} processes were met"
            line = Line(url)
            if line.process in lines:
                line.close()
            else:
                lines[line.process] = line
        yield list(lines.values())
    finally:
        for line in lines.values():
            line.close()


@pytest.fixture(scope="module")
def everywhere():
    """Run two gateways on one PostgreSQL database, one of three processes; yield lines to all of them."""
    with postgresql_name() as name:
        address = postgresql_address(name)
        environment = {"LLM_GATE_DATABASE_URL": address, "LLM_GATE_PEPPER": PEPPER}
        with (
            running_gateway(environment, arguments=("--workers", str(WORKERS))) as many,
            running_gateway(environment) as one,
            issuer_at(many.folder, database_url=address, pepper=PEPPER) as issuer,
            lines_to(many.url, WORKERS) as lines,
            lines_to(one.url, 1) as others,
        ):
            yield issuer, [*lines, *others]


@proved
def test_what_happens_to_a_key_is_known_everywhere_within_a_second(everywhere):
    """Issued, it works; rotated, both work until the overlap ends; revoked, it ends, while the others go on."""
    issuer, lines = everywhere
    steady = issuer.key("inference")
    rng = random.Random(3)  # noqa: S311 - to be the same again
    took_s = []
    for _ in range(ROUNDS):
        issued = issuer.issue("inference")
        key = issued.text.reveal()
        old, new = issuer.rotated("inference", overlap_s=3600)
        for line in lines:
            for each in (steady, key, old, new):
                line.until(each, 200)
        # At any moment between two looks of the processes.
        time.sleep(rng.random() / 2)
        issuer.revoke(issued)
        revoked_at = time.monotonic()
        for line in lines:
            line.until(key, 401)
        took_s.append(time.monotonic() - revoked_at)
        for line in lines:
            assert [line.ask(each)[0] for each in (steady, old, new)] == [200, 200, 200]
    figures = {"median_s": round(median(took_s), 2), "worst_s": round(max(took_s), 2)}
    print(ROUNDS, "revocations on", len(lines), "processes:", figures)  # noqa: T201 - shown by -rP
    if PROVES:
        assert median(took_s) < 1

    # An overlap ends by the clock, without anybody doing anything.
    old, new = issuer.rotated("inference", overlap_s=2)
    for line in lines:
        line.until(new, 200)
    for line in lines:
        line.until(old, 401)
        assert line.ask(new)[0] == 200


def test_the_first_key_ends_local_mode_and_the_last_does_not_bring_it_back():
    """From the first key on, nobody comes in without one, even when none is left that works."""
    with running_gateway() as gateway, issuer_at(gateway.folder / "data") as issuer:
        assert call(gateway.url, "/v1/models").status == 200
        first = issuer.issue("inference")
        line = Line(gateway.url)
        line.until(None, 401)
        line.until(first.text.reveal(), 200)
        issuer.revoke(first)
        line.until(first.text.reveal(), 401)
        assert line.ask(None)[0] == 401
        line.close()
