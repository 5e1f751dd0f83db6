"""Recorded vendor traffic, read from ../shared/recorded where that folder stands beside the project."""

import base64
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

REASON = "recorded traffic is not beside the project (../shared/recorded)"
_ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "recorded"


@dataclass(frozen=True)
class Interaction:
    """One request and its answer; `json` is the parsed body of the answer, None when it is no JSON."""

    request: dict[str, Any] | None
    status: int
    headers: dict[str, str]
    body: bytes
    json: Any


@dataclass(frozen=True)
class Recording:
    """One file; `id` is its path below the root."""

    id: str
    interactions: tuple[Interaction, ...]


def recorded_root() -> Path | None:
    """Return the folder of recordings, or None when it is not here."""
    return _ROOT if _ROOT.is_dir() else None


def recordings(provider: str, *operations: str) -> list[Recording]:
    """Return all recordings of some operations of a provider, sorted by path; none when they are not here."""
    if recorded_root() is None:
        return []
    found = [path for op in operations for path in sorted((_ROOT / provider / op).glob("*.json"))]
    return [_load(path) for path in found]


def parametrize(name: str, found: list[Recording]) -> pytest.MarkDecorator:
    """Parametrize a test over recordings, or skip it with the reason when there are none."""
    if recorded_root() is None:
        return pytest.mark.skip(reason=REASON)
    return pytest.mark.parametrize(name, found, ids=[recording.id for recording in found])


@cache
def _load(path: Path) -> Recording:
    document = json.loads(path.read_text(encoding="utf-8"))
    return Recording(
        id=str(path.relative_to(_ROOT)),
        interactions=tuple(_interaction(item) for item in document["interactions"]),
    )


def _interaction(item: dict[str, Any]) -> Interaction:
    response = item["response"]
    body = response.get("body")
    parsed = body
    if "body_base64" in response:
        raw = base64.b64decode(response["body_base64"])
        parsed = None
    elif body is None:
        raw = b""
    elif isinstance(body, str):
        raw = body.encode()
        parsed = None
    else:
        raw = json.dumps(body).encode()
    return Interaction(
        request=item["request"],
        status=response["status"],
        headers=dict(response.get("headers") or {}),
        body=raw,
        json=parsed,
    )
