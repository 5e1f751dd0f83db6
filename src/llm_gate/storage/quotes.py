"""Reads quotes from the table of open reservations; only the ledger writes there."""

import msgspec
from sqlalchemy import Connection, select

from llm_gate.domain.ledger import Reservation
from llm_gate.storage.database import Database
from llm_gate.storage.schema import reservation

_decoder = msgspec.json.Decoder(Reservation)


class StoredQuotes:
    """The port `Quotes` over the database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def quote(self, id: str) -> Reservation | None:  # noqa: A002 - it is one
        """Return an open quote.

        Raises:
            StoreUnavailable: the database cannot be reached.
        """

        def ask(connection: Connection) -> str | None:
            wanted = (reservation.c.id == id) & reservation.c.expires_ms.is_not(None)
            found: str | None = connection.execute(select(reservation.c.body).where(wanted)).scalar()
            return found

        body = await self._database.read(ask)
        return None if body is None else _decoder.decode(body)
