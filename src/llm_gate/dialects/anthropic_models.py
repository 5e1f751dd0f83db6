"""The model list in Anthropic's format, cut into pages."""

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from llm_gate.domain.catalog import Model
from llm_gate.domain.errors import InvalidRequest

_UNKNOWN_DAY = "1970-01-01T00:00:00Z"
_DEFAULT_LIMIT, _MAX_LIMIT = 20, 1000


class ModelEntry(Struct, frozen=True, kw_only=True):
    """One model. The vendor's format has an epoch value where the day of release is not known."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str = _UNKNOWN_DAY
    lifecycle: Literal["active", "deprecated"]
    retires_at: str | None
    max_input_tokens: int | None
    max_tokens: int | None


class ModelPage(Struct, frozen=True, kw_only=True):
    """Some of the models; `has_more` in the direction that was asked for."""

    data: Sequence[ModelEntry]
    has_more: bool
    first_id: str | None
    last_id: str | None


class PageQuery(Struct, frozen=True, kw_only=True):
    """Which part of the list is wanted."""

    after_id: str | None = None
    before_id: str | None = None
    limit: Annotated[int, Meta(ge=1, le=_MAX_LIMIT)] = _DEFAULT_LIMIT


def model_entry(name: str, model: Model) -> ModelEntry:
    """Describe a model under the name it was asked for."""
    retires_on = model.retired_on
    return ModelEntry(
        id=name,
        display_name=model.label,
        lifecycle="active" if retires_on is None else "deprecated",
        retires_at=None if retires_on is None else f"{retires_on.isoformat()}T00:00:00Z",
        max_input_tokens=model.context_window,
        max_tokens=model.max_output_tokens,
    )


def read_query(given: dict[str, str]) -> PageQuery:
    """Read the parameters of the address.

    Raises:
        InvalidRequest: the limit is no number from 1 to 1000, or both directions are asked for.
    """
    try:
        query = msgspec.convert(given, PageQuery, strict=False)
    except msgspec.ValidationError:
        raise InvalidRequest(f"limit: must be a number from 1 to {_MAX_LIMIT}", param="limit") from None
    if query.after_id is not None and query.before_id is not None:
        raise InvalidRequest("before_id: cannot be combined with after_id", param="before_id")
    return query


def model_page(models: Sequence[Model], query: PageQuery) -> bytes:
    """Write one page of the models that can chat.

    Raises:
        InvalidRequest: the list has no model of the id to start from.
    """
    entries = [
        model_entry(f"{model.provider}/{model.name}", model) for model in models if "chat" in model.operations
    ]
    if query.after_id is not None:
        rest = entries[_position(entries, query.after_id, "after_id") + 1 :]
        shown = rest[: query.limit]
    elif query.before_id is not None:
        rest = entries[: _position(entries, query.before_id, "before_id")]
        shown = rest[-query.limit :]
    else:
        rest, shown = entries, entries[: query.limit]
    page = ModelPage(
        data=shown,
        has_more=len(shown) < len(rest),
        first_id=shown[0].id if shown else None,
        last_id=shown[-1].id if shown else None,
    )
    return msgspec.json.encode(page)


def _position(entries: Sequence[ModelEntry], name: str, param: str) -> int:
    for index, entry in enumerate(entries):
        if entry.id == name:
            return index
    raise InvalidRequest(f"{param}: the list has no model {name!r}", param=param)
