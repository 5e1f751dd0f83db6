"""A batch beside calls that somebody waits for: it goes at its own pace, and is hardly felt."""

import http.client
import json
import time
from urllib.parse import urlsplit

from support.batches import chat_lines, client_of, followed, hand_in
from support.figures import full, proved
from support.gateway import running_gateway

LINES, CHATS = full(120, 2_000), full(150, 1_500)
MOST_A_SECOND = 40


def latencies_ms(url, count):
    """Make chats one after the other, and return how long each took, sorted."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port)
    body = json.dumps({"model": "sandbox/chat", "messages": [{"role": "user", "content": "Hello"}]})
    found = []
    try:
        for _ in range(count):
            began_s = time.perf_counter()
            connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
            assert connection.getresponse().read()
            found.append((time.perf_counter() - began_s) * 1000)
            time.sleep(0.01)
    finally:
        connection.close()
    return sorted(found)


@proved
def test_a_batch_is_not_in_the_way_of_chats():
    """While a batch is worked on whose vendor answers at once, chats take hardly longer; the batch keeps its rate."""
    with running_gateway() as gateway, client_of(gateway.url) as client:
        latencies_ms(gateway.url, 50)
        alone = latencies_ms(gateway.url, CHATS)
        began_s = time.monotonic()
        batch = hand_in(client, chat_lines(LINES, "sandbox/chat"))
        beside = latencies_ms(gateway.url, CHATS)
        batch = followed(client, batch, within_s=LINES / 10 + 30)
        took_s = time.monotonic() - began_s
    assert batch.request_counts.completed == LINES
    assert took_s >= (LINES - 10) / MOST_A_SECOND
    worst = round(len(alone) * 0.99) - 1
    print(f"p99 alone {alone[worst]:.1f} ms, beside {beside[worst]:.1f} ms")  # noqa: T201 - the figure for the docs
    assert beside[worst] < 4 * alone[worst] + 20
    assert beside[len(beside) // 2] < 3 * alone[len(alone) // 2] + 5
