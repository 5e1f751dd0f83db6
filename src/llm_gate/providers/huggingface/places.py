"""Where a model is found behind the router: as the catalog says, or as the hub does."""

import re
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

import msgspec
from msgspec import Struct

from llm_gate.domain.errors import ProviderModelGone
from llm_gate.domain.provider import Exchanges, HttpRequest, Send, Target
from llm_gate.providers.huggingface.answers import read

MAKER = "fal-ai"
"""The provider behind the router that makes the media."""
ROUTER = "router.huggingface.co"
PATH = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_-][A-Za-z0-9_.-]*){0,7}")
"""What a path at the maker may look like, and a model's name at the hub."""
# Who serves a model changes rarely.
_KEEP_S = 600.0
_HUB, _LIVE = "https://huggingface.co", "live"


class _Place(Struct, frozen=True, kw_only=True):
    """Where a model is at the maker."""

    provider: Any = None
    status: Any = None
    task: Any = None
    id: Any = msgspec.field(name="providerId", default=None)


class _Listed(Struct, frozen=True, kw_only=True):
    """What the hub says of a model: its places by provider, or as a list."""

    places: dict[str, Any] | list[Any] | None = msgspec.field(name="inferenceProviderMapping", default=None)


def _address(target: Target) -> SplitResult:
    return urlsplit(target.deployment.base_url)


def maker_url(target: Target, path: str) -> str:
    """Return the address of a path at the maker, behind the router."""
    at = _address(target)
    return f"{at.scheme}://{at.netloc}/{MAKER}/{path}"


def path_at_maker(target: Target, task: str) -> Exchanges[str]:
    """Return the model's path at the maker: as the catalog says, else as the hub does.

    Raises:
        ProviderModelGone: the maker does not serve the model, or not for this.
    """
    spec = target.model.media
    known = spec.paths.get(MAKER) if spec is not None else None
    if known is not None:
        return known
    model = target.wire_model.removesuffix(f":{MAKER}")
    if not PATH.fullmatch(model):
        raise _gone(target, "is no name of a model")
    at = _address(target)
    hub = _HUB if at.hostname == ROUTER else f"{at.scheme}://{at.netloc}"
    url = f"{hub}/api/models/{quote(model)}?expand[]=inferenceProviderMapping"
    reply = yield Send(request=HttpRequest(method="GET", url=url, body=b""), keep_s=_KEEP_S)
    listed = read(reply, _Listed, target, "holds no provider mapping")
    place = _place_in(listed.places)
    if (
        place is None
        or place.status != _LIVE
        or not isinstance(place.id, str)
        or not PATH.fullmatch(place.id)
    ):
        raise _gone(target, f"is not served by {MAKER}")
    if isinstance(place.task, str) and place.task != task:
        raise _gone(target, f"is served by {MAKER} for {place.task}, not for {task}")
    return place.id


def _place_in(places: dict[str, Any] | list[Any] | None) -> _Place | None:
    """Find the maker's entry in either of the hub's two forms."""
    if isinstance(places, dict):
        places = [{**entry, "provider": name} for name, entry in places.items() if isinstance(entry, dict)]
    for entry in places or ():
        if isinstance(entry, dict) and entry.get("provider") == MAKER:
            return msgspec.convert(entry, _Place)
    return None


def _gone(target: Target, what: str) -> ProviderModelGone:
    error = ProviderModelGone(
        f"the model {target.wire_model!r} {what}", provider=target.provider, model=target.wire_model
    )
    error.is_unbilled = True
    return error
