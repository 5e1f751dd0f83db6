"""Puts together what works on batches, where there is a store that keeps them."""

from llm_gate.bootstrap.gateway import Gateway, ids_of, now_ms
from llm_gate.engine.batch_lines import Wording
from llm_gate.engine.batch_work import BatchWork
from llm_gate.engine.batches import BatchDesk
from llm_gate.storage.batches import StoredBatches


def open_batches(gateway: Gateway, wording: Wording) -> BatchDesk | None:
    """Let a gateway take batches, whose lines are worded as a surface words them; None where nothing is kept."""
    opened, files = gateway.stores.opened, gateway.files
    if opened is None or files is None:
        return None
    batches = StoredBatches(opened.database, key=opened.pepper.derive("batches"))
    work = BatchWork(gateway.gate, batches, files, wording, key_of=opened.administration.key, now_ms=now_ms)
    owner = gateway.stores.owner
    desk = BatchDesk(batches, files, work, owner=owner, new_id=ids_of(owner), now_ms=now_ms)
    gateway.batches = desk
    return desk
