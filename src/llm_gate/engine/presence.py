"""Which providers are there now, of those whose servers and models come and go: asked in the background.

Theory of operation: where a provider's dialect can ask for its models, one task asks for them every few seconds, and
the answer is kept until the next one. A call never waits for it. Nothing heard yet means that the provider counts as
there with whatever the catalog says.
"""

import asyncio
import logging
from collections.abc import Mapping

from msgspec import Struct

from llm_gate.domain.errors import GateError
from llm_gate.domain.ports import Transport
from llm_gate.domain.provider import Deployment, PresenceCodec

ASK_EVERY_S = 10.0
TIMEOUT_S = 2.0

_FIRST_FAILURE_STATUS = 300
_SILENT = "it does not answer at its address"


class Heard(Struct, frozen=True, kw_only=True):
    """What was heard last: the models it has, in its order, or why it cannot be used."""

    models: tuple[str, ...] = ()
    trouble: str | None = None


class Presence:
    """What was last heard of each provider that can be asked."""

    def __init__(self, deployments: Mapping[str, tuple[Deployment, ...]]) -> None:
        self._askable: dict[str, tuple[PresenceCodec, tuple[Deployment, ...]]] = {}
        for name, places in deployments.items():
            codec = places[0].codecs.presence if places else None
            if codec is not None:
                self._askable[name] = (codec, places)
        self._heard: dict[str, Heard] = {}

    def trouble(self, provider: str) -> str | None:
        """Say why a provider that is configured cannot be used now; None where nothing is known against it."""
        heard = self._heard.get(provider)
        return None if heard is None else heard.trouble

    def lacks(self, provider: str, wire_model: str) -> bool:
        """Tell whether a provider is known not to have a model, by its name at the vendor."""
        heard = self._heard.get(provider)
        return heard is not None and self.plain(provider, wire_model) not in heard.models

    def plain(self, provider: str, wire_model: str) -> str:
        """Return the form of a model's name in which `models` has it."""
        return self._askable[provider][0].plain(wire_model) if provider in self._askable else wire_model

    def models(self, provider: str) -> tuple[str, ...]:
        """Return the names of the models that a provider said it has."""
        heard = self._heard.get(provider)
        return () if heard is None else heard.models

    async def ask(self, transport: Transport) -> None:
        """Ask everyone once, all at the same time."""
        await asyncio.gather(*(self._ask(name, transport) for name in self._askable))

    async def keep_asking(self, transport: Transport, *, every_s: float = ASK_EVERY_S) -> None:
        """Ask now and then until cancelled; return at once where there is nobody to ask."""
        while self._askable:
            await self.ask(transport)
            await asyncio.sleep(every_s)

    async def _ask(self, name: str, transport: Transport) -> None:
        codec, places = self._askable[name]
        answers = await asyncio.gather(*(_hear(codec, place, transport) for place in places))
        there = [answer for answer in answers if answer.trouble is None]
        models = tuple(dict.fromkeys(model for answer in there for model in answer.models))
        heard = Heard(models=models) if there else answers[0]
        if name not in self._heard or self._heard[name].trouble != heard.trouble:
            what = "provider is there" if heard.trouble is None else "provider is away"
            logging.getLogger(f"llm_gate.provider.{name}").info(
                what, extra={"provider": name, "error": heard.trouble}
            )
        self._heard[name] = heard


async def _hear(codec: PresenceCodec, place: Deployment, transport: Transport) -> Heard:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reply = await transport.send(codec.encode(place), place)
    except (TimeoutError, GateError):
        return Heard(trouble=_SILENT)
    if reply.status >= _FIRST_FAILURE_STATUS:
        return Heard(trouble=f"asked for its models, it answers with status {reply.status}")
    models = codec.decode(reply)
    if models is None:
        return Heard(trouble="asked for its models, it answers something else")
    return Heard(models=models)
