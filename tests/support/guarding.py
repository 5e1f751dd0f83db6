"""Guards as an operator writes them, for gateways that tests start."""

import asyncio
import time

from llm_gate.domain.errors import GuardRefused
from llm_gate.domain.guards import Guarded


def no_secrets(guarded: Guarded) -> None:
    """Refuse what holds a forbidden word; break down, or take too long, where the text says so."""
    text = " ".join(guarded.texts)
    if "forbidden" in text:
        raise GuardRefused(f"no forbidden words in the {guarded.side}")
    if "broken guard" in text:
        raise RuntimeError("a guard with a fault, and the text: " + text)
    if "slow guard" in text:
        time.sleep(1.5)


async def no_echo(guarded: Guarded) -> None:
    """Refuse answers that repeat a word."""
    await asyncio.sleep(0)
    if any("parrot" in text for text in guarded.texts):
        raise GuardRefused("the answer repeats what it should not")
