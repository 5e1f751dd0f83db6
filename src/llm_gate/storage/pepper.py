"""The secret beside the store: what hashes keys and seals credentials and answers, so that a copied database is no use.

It comes from LLM_GATE_PEPPER, or is made at first use in the data folder. The store keeps a fingerprint of it, so
that a wrong one is told at once instead of every key failing.
"""

import os
import secrets
import stat
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, select

from llm_gate.domain.errors import GateFault
from llm_gate.domain.keys import KeyHash
from llm_gate.domain.secret import Secret
from llm_gate.storage import schema
from llm_gate.storage.changes import insert
from llm_gate.storage.database import Database

FILE_NAME = "pepper"
VARIABLE = "LLM_GATE_PEPPER"
SHORTEST_CHARS = 32

Purpose = Literal["keys", "credentials", "answers", "webhooks", "fingerprint", "links", "cache", "batches"]
"""What a derived key is for; nothing is ever used for two things."""

_KEY_BYTES = 32
_SALT = b"llm-gate"
_FINGERPRINT_ROW = "pepper"


class PepperFault(GateFault):
    """The pepper is missing, not safe, or not the one of this store."""

    code = "pepper_fault"


class Pepper:
    """The secret from which every key of the gateway's own is derived. Shows itself to nobody."""

    __slots__ = ("_material",)

    def __init__(self, secret: Secret) -> None:
        self._material = secret.reveal().strip().encode()

    def derive(self, purpose: Purpose) -> bytes:
        """Return the key (32 bytes) for one purpose."""
        return HKDF(SHA256(), _KEY_BYTES, salt=_SALT, info=purpose.encode()).derive(self._material)

    @property
    def key_hash(self) -> KeyHash:
        """What hashes virtual keys."""
        return KeyHash(self.derive("keys"))

    @property
    def fingerprint(self) -> str:
        """What tells this pepper from another and gives nothing of it away."""
        return sha256(self.derive("fingerprint")).hexdigest()[:32]

    def __repr__(self) -> str:
        return "Pepper(***)"

    def __reduce__(self) -> str:
        raise TypeError("a Pepper is not serialisable")


def open_pepper(database: Database, *, given: Secret | None, data_dir: Path) -> Pepper:
    """Return the pepper of a store, after making it where there was none.

    Raises:
        PepperFault: it is missing, can be read by others, is too short, or is not the one of this store.
        StoreUnavailable: the store cannot be reached.
    """
    known = database.ask(_fingerprint)
    pepper = Pepper(given or _from_folder(database, data_dir, may_make=known is None))
    if known is None:
        known = database.change(_noting(pepper.fingerprint))
    if known != pepper.fingerprint:
        raise PepperFault(
            f"the pepper in {'' if given else 'the file '}{VARIABLE if given else data_dir / FILE_NAME} is not the one "
            "this store was made with: its keys and credentials could not be used. Restore the right one"
        )
    return pepper


def _from_folder(database: Database, data_dir: Path, *, may_make: bool) -> Secret:
    if database.kind != "sqlite":
        raise PepperFault(
            f"{VARIABLE} is not set: with PostgreSQL it must be, to the same {SHORTEST_CHARS} or more characters for "
            "every gateway of the database"
        )
    path = data_dir / FILE_NAME
    if not path.exists():
        if not may_make:
            raise PepperFault(
                f"the file {path} is gone, without which the store's keys and credentials cannot be used: restore it, "
                f"or set {VARIABLE} to what stood in it"
            )
        _make(path)
    return _read(path)


def _make(path: Path) -> None:
    """Write a new pepper; of several processes that do so at once, one wins."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{secrets.token_urlsafe(_KEY_BYTES)}\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            # A link appears with its content, and only where nothing of that name is.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise PepperFault(f"the file {path} cannot be made: {error.strerror}") from error


def _read(path: Path) -> Secret:
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise PepperFault(f"the file {path} cannot be read") from error
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PepperFault(f"the file {path} can be read by others: run `chmod 600 {path}`")
    if len(text) < SHORTEST_CHARS:
        raise PepperFault(f"the file {path} has fewer than {SHORTEST_CHARS} characters")
    return Secret(text)


def _fingerprint(connection: Connection) -> str | None:
    query = select(schema.meta.c.value).where(schema.meta.c.name == _FINGERPRINT_ROW)
    return connection.execute(query).scalar()


def _noting(fingerprint: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        statement = insert(connection, schema.meta).values(name=_FINGERPRINT_ROW, value=fingerprint)
        connection.execute(statement.on_conflict_do_nothing())
        return _fingerprint(connection) or fingerprint

    return work
