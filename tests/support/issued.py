"""Keys of every state in the store of a running gateway, made without a command for each; callers from many places."""

import asyncio
import http.client
import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_bytes
from typing import Any
from urllib.parse import urlsplit

from msgspec import structs

from llm_gate.cli.store import new_id, now_ms
from llm_gate.domain.administration import Act
from llm_gate.domain.secret import Secret
from llm_gate.engine.keys import IssuedKey, KeyRequest, Keys
from llm_gate.storage.opening import Store, open_store
from support.web import TIMEOUT_S, WebAnswer

_HOUR_MS = 3_600_000


class Issuer:
    """The operator at the store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._shift_ms = 0
        self._keys = Keys(
            administration=store.administration,
            key_hash=store.pepper.key_hash,
            now_ms=lambda: now_ms() + self._shift_ms,
            new_id=new_id,
            randomness=token_bytes,
        )

    def issue(self, *scopes: str, **fields: Any) -> IssuedKey:
        """Make a key with some scopes."""
        asked = {"application": "demo", "scopes": frozenset(scopes), **fields}
        return asyncio.run(self._keys.issue(KeyRequest(**asked)))

    def key(self, *scopes: str, **fields: Any) -> str:
        """Make a key and return its text."""
        return self.issue(*scopes, **fields).text.reveal()

    def expired(self, *scopes: str) -> str:
        """Make a key that ended an hour ago."""
        self._shift_ms = -2 * _HOUR_MS
        try:
            return self.key(*scopes, expires_at_ms=now_ms() - _HOUR_MS)
        finally:
            self._shift_ms = 0

    def rotated(self, *scopes: str, overlap_s: int) -> tuple[str, str]:
        """Make a key and another in its place; returns both, the old one first."""
        old = self.issue(*scopes)
        new = asyncio.run(self._keys.rotate(old.key.id, overlap_s=overlap_s))
        return old.text.reveal(), new.text.reveal()

    def revoke(self, issued: IssuedKey) -> None:
        """End a key."""
        asyncio.run(self._keys.revoke(issued.key.id))

    def change_key(self, issued: IssuedKey, **fields: Any) -> None:
        """Change what stands in the store about a key."""
        act = Act(actor="tests", action="key.change", at_ms=now_ms())
        change = self.store.administration.change_key(
            None, issued.key.id, lambda key: (structs.replace(key, **fields),), act
        )
        asyncio.run(change)


@contextmanager
def issuer_at(
    folder: Path, *, database_url: str | None = None, pepper: str | None = None
) -> Iterator[Issuer]:
    """Open the store of a data folder, or of a PostgreSQL database, beside the gateways that run on it."""
    store = open_store(
        data_dir=folder,
        database_url=None if database_url is None else Secret(database_url),
        pepper=None if pepper is None else Secret(pepper),
        at_ms=now_ms(),
    )
    try:
        yield Issuer(store)
    finally:
        store.close()


def mistyped(key: str) -> str:
    """Return a key with one wrong character, which its checksum tells."""
    return f"{key[:20]}{'a' if key[20] != 'a' else 'b'}{key[21:]}"


def places() -> Callable[[], str]:
    """Return a function that gives loopback addresses, a new one each time, from which nobody has called."""
    numbers = itertools.count(1)

    def place() -> str:
        number = next(numbers)
        return f"127.77.{number // 250}.{number % 250 + 1}"

    return place


def call_from(
    place: str, url: str, method: str, path: str, headers: Mapping[str, str], body: bytes | None = None
) -> WebAnswer:
    """Make a call from one of this machine's loopback addresses."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(
        parts.hostname or "", parts.port, timeout=TIMEOUT_S, source_address=(place, 0)
    )
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return WebAnswer(status=response.status, headers=named, body=response.read())
    finally:
        connection.close()
