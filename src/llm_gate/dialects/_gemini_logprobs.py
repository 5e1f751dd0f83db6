"""Log probabilities from Gemini's form into OpenAI's, which is the neutral one."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from llm_gate.dialects._gemini_schema import is_present, read_lenient


class _Scored(Struct, frozen=True, kw_only=True, rename="camel"):
    token: str
    log_probability: float = 0.0


class _Rivals(Struct, frozen=True, kw_only=True):
    candidates: tuple[_Scored, ...] = ()


class _Logprobs(Struct, frozen=True, kw_only=True, rename="camel"):
    chosen_candidates: tuple[_Scored, ...] = ()
    top_candidates: tuple[_Rivals, ...] = ()


_decoder = msgspec.json.Decoder(_Logprobs)


def read_logprobs(raw: Raw) -> Raw | None:
    """Return `{content: [...], refusal: null}`; None when there are none that can be read."""
    result = read_lenient(_decoder, raw) if is_present(raw) else None
    if result is None:
        return None
    content = []
    for position, chosen in enumerate(result.chosen_candidates):
        known = position < len(result.top_candidates)
        rivals = result.top_candidates[position].candidates if known else ()
        content.append({**_entry(chosen), "top_logprobs": [_entry(rival) for rival in rivals]})
    return Raw(msgspec.json.encode({"content": content, "refusal": None}))


def _entry(scored: _Scored) -> dict[str, Any]:
    return {
        "token": scored.token,
        "logprob": scored.log_probability,
        "bytes": list(scored.token.encode(errors="replace")),
    }
