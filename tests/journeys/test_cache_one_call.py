"""A thousand callers ask the same at once: the vendor is asked once, and every one of them is answered and recorded."""

import asyncio
import json
import sqlite3
from contextlib import closing

from support.gateway import running_gateway
from support.upstream import Answer, fake_upstream

CALLERS = 1_000
QUESTION = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "What is the time?"}]}
COMPLETION = {
    "id": "chatcmpl-1",
    "created": 1,
    "model": "m",
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Half past"}, "finish_reason": "stop"}
    ],
    "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
}


async def ask(port: int, *, stream: bool) -> str:
    """Ask over a connection of one's own, and return the whole answer as it came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps({**QUESTION, "stream": stream}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        return (await reader.read()).decode()
    finally:
        writer.close()


async def all_at_once(port: int) -> list[str]:
    """Ask a thousand times, every third time for a stream; the first one asks for a whole answer."""
    first = asyncio.ensure_future(ask(port, stream=False))
    await asyncio.sleep(0.3)
    rest = await asyncio.gather(*(ask(port, stream=number % 3 == 0) for number in range(1, CALLERS)))
    return [await first, *rest]


def test_a_thousand_identical_requests_at_once_are_one_upstream_call():
    """One miss, 999 hits, one call and one cost, a thousand records."""
    slow = Answer.json(COMPLETION)
    with fake_upstream() as vendor:
        environment = {
            "OPENAI_API_KEY": "sk-fake-openai-0123456789",
            "LLM_GATE_OPENAI_BASE_URL": f"{vendor.url}/v1",
        }
        # Slow enough for everybody to have come before it answers.
        vendor.will(Answer(headers=slow.headers, body=slow.body, delay_s=3.0))
        with running_gateway(environment, toml="[cache]\nexact = true\n") as gateway:
            answers = asyncio.run(all_at_once(int(gateway.url.rsplit(":", 1)[1])))
            path = gateway.folder / "data" / "llm-gate.db"
            with closing(sqlite3.connect(path)) as connection:
                sql = "select count(*), sum(cost_nanos), sum(saved_nanos) from attempt where status = 'ok'"
                counted = connection.execute(sql).fetchone()
        assert len(vendor.seen) == 1
    assert all(answer.startswith("HTTP/1.1 200") and "Half past" in answer for answer in answers)
    assert sum("x-llm-gate-cache: miss" in answer for answer in answers) == 1
    assert sum("x-llm-gate-cache: hit" in answer for answer in answers) == CALLERS - 1
    assert counted == (CALLERS, 45_000, 45_000 * (CALLERS - 1))
