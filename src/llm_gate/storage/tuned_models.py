"""Tuned models in the store. Each new one raises the revision, so that every process learns of it as of a new key."""

import msgspec
from sqlalchemy import insert, select

from llm_gate.domain.administration import Act
from llm_gate.domain.fine_tuning import TunedModel
from llm_gate.storage.changes import Changes, change_store
from llm_gate.storage.database import Database
from llm_gate.storage.schema import tuned_model as table

_ACTOR, _ACTION = "fine-tuning", "model.tuned"
_decoder = msgspec.json.Decoder(TunedModel)
_encoder = msgspec.json.Encoder()


class StoredTunedModels:
    """The port `TunedModels` over a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, model: TunedModel) -> TunedModel:
        """Write a model down, let every process know, and return what stands there: a name has one owner for good."""
        known = select(table.c.body).where(table.c.provider == model.provider, table.c.name == model.name)
        row = {
            "provider": model.provider,
            "name": model.name,
            "tenant": model.tenant,
            "made_ms": model.made_ms,
            "body": _encoder.encode(model).decode(),
        }

        def work(changes: Changes) -> TunedModel:
            # Changes wait for each other, so that nobody writes the same name between the look and the line.
            standing = changes.connection.execute(known).scalar()
            if standing is not None:
                return _decoder.decode(standing)
            changes.connection.execute(insert(table).values(row))
            changes.note(
                tenant=model.tenant, target=f"{model.provider}/{model.name}", before=None, after=model
            )
            return model

        act = Act(actor=_ACTOR, action=_ACTION, at_ms=model.made_ms)
        return await change_store(self._database, act, work)

    async def load_all(self) -> tuple[TunedModel, ...]:
        """Return every tuned model of every tenant."""
        wanted = select(table.c.body).order_by(table.c.made_ms, table.c.name)
        bodies = await self._database.read(lambda connection: connection.execute(wanted).scalars().all())
        return tuple(_decoder.decode(body) for body in bodies)
