"""Stores for the benchmark: an empty one, and one as it is after years, each with a key that callers present."""

import asyncio
import shutil
import time
from pathlib import Path
from secrets import token_bytes, token_hex

from bench.ledger import fill
from llm_gate.engine.keys import KeyRequest, Keys
from llm_gate.storage.opening import open_store
from llm_gate.storage.schema import virtual_key


def prepare_store(data_dir: Path, *, rows: int, keys: int) -> str:
    """Make a store with so many usage records and keys, in place of any that is there; return one of the keys."""
    shutil.rmtree(data_dir, ignore_errors=True)
    store = open_store(data_dir=data_dir, database_url=None, pepper=None, at_ms=_now_ms())
    issuer = Keys(
        administration=store.administration,
        key_hash=store.pepper.key_hash,
        now_ms=_now_ms,
        new_id=lambda: f"{_now_ms():012x}{token_hex(6)}",
        randomness=token_bytes,
    )
    issued = asyncio.run(issuer.issue(KeyRequest(application="bench")))
    fill(store.database, rows)
    with store.database.engine.begin() as connection:
        row = dict(connection.execute(virtual_key.select()).mappings().one())
        copies = [{**row, "id": f"key_{number:08d}", "digest": token_bytes(32)} for number in range(keys)]
        if copies:
            connection.execute(virtual_key.insert(), copies)
    store.close()
    return issued.text.reveal()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
