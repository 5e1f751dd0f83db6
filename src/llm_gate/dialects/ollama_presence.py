"""Which models an Ollama server has: `GET /api/tags`.

Contract: https://docs.ollama.com/api/tags
"""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from llm_gate.dialects.ollama_wire import UNREADABLE
from llm_gate.domain.provider import Deployment, HttpReply, HttpRequest

_USUAL_TAG = ":latest"


class _Named(Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1)]


class _Tags(Struct, frozen=True):
    models: tuple[_Named, ...]


_decoder = msgspec.json.Decoder(_Tags)


class OllamaPresence:
    """Asks for the list of models."""

    def encode(self, deployment: Deployment) -> HttpRequest:
        """Build the request."""
        return HttpRequest(method="GET", url=f"{deployment.base_url}/api/tags", body=b"")

    def decode(self, reply: HttpReply) -> tuple[str, ...] | None:
        """Read a successful reply."""
        try:
            models = _decoder.decode(reply.body).models
        except UNREADABLE:
            return None
        return tuple(dict.fromkeys(self.plain(model.name) for model in models))

    def plain(self, name: str) -> str:
        """Leave the tag out that is meant where none is given."""
        return name.removesuffix(_USUAL_TAG)
