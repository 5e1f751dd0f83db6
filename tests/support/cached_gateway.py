"""A gateway with a cache before a vendor whose answers are never the same: what was given twice was kept."""

import json
from collections.abc import Iterator
from typing import Any

import aiohttp

from support.caches import pointing
from support.office import bearer
from support.upstream import Answer, Seen

QUESTIONS = 40
"""How many questions there are that mean something else."""


def direction(number: int, wording: float) -> tuple[float, ...]:
    """Return a question's vector: nearly the same for every wording, another for every question."""
    vector = [0.02 * wording, 0.01] + [0.0] * QUESTIONS
    vector[2 + number] = 1.0
    return pointing(*vector)


def vendor(seen: Seen, serial: Iterator[int]) -> Answer:
    """Answer as a vendor: every chat with a number that never comes again, every text with its question's vector."""
    if seen.path.endswith("/embeddings"):
        texts = seen.json["input"]
        vectors = [vector_of(text) for text in ([texts] if isinstance(texts, str) else texts)]
        data = [{"object": "embedding", "index": at, "embedding": each} for at, each in enumerate(vectors)]
        usage = {"prompt_tokens": 8, "total_tokens": 8}
        return Answer.json({"object": "list", "model": "e", "data": data, "usage": usage})
    mark = f"answer-{next(serial)}"
    said = {"id": mark, "object": "chat.completion", "created": 1, "model": "m"}
    usage = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    if not seen.json.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": mark}, "finish_reason": "stop"}
        return Answer.json({**said, "choices": [choice], "usage": usage})
    said["object"] = "chat.completion.chunk"
    pieces = [
        {**said, "choices": [{"index": 0, "delta": {"role": "assistant", "content": mark}}]},
        {**said, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {**said, "choices": [], "usage": usage},
    ]
    return Answer.events(
        *(f"data: {json.dumps(piece)}\n\n".encode() for piece in pieces), b"data: [DONE]\n\n"
    )


def vector_of(text: str) -> list[float]:
    """Return the vector of a text that names a question by its number."""
    number = int("".join(mark for mark in text if mark.isdigit()) or "0") % QUESTIONS
    return list(direction(number, len(text) / 50))


def settings_of(url: str, **cache: Any) -> str:
    """Return the settings of a gateway with a cache, whose provider `second` lives at an address."""
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in cache.items())
    return f"""
        [cache]
        {lines}

        [providers.second]
        dialect = "openai"
        base_url = "{url}/v1"
        auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
        [[providers.second.models]]
        name = "m"
        operations = ["chat"]
        prices = [
            {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
            {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
        ]
        [[providers.second.models]]
        name = "e"
        operations = ["embedding"]
        prices = [{{ unit = "input_tokens", per = 1_000_000, usd = "0.02" }}]
    """


async def ask(
    session: aiohttp.ClientSession, url: str, key: str | None, text: str, *, stream: bool = False
) -> tuple[str, str]:
    """Ask through the gateway; returns the words of the answer, and what it says of the cache."""
    body = {"model": "second/m", "messages": [{"role": "user", "content": text}], "temperature": 0}
    body |= {"stream": True} if stream else {}
    async with session.post(
        f"{url}/v1/chat/completions", json=body, headers={} if key is None else bearer(key)
    ) as answer:
        assert answer.status == 200, await answer.text()
        word = answer.headers["x-llm-gate-cache"]
        if not stream:
            return (await answer.json())["choices"][0]["message"]["content"], word
        lines = [line for line in (await answer.text()).splitlines() if line.startswith("data: {")]
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert not any("error" in piece for piece in pieces), pieces
    return "".join(c["delta"].get("content") or "" for piece in pieces for c in piece["choices"]), word
