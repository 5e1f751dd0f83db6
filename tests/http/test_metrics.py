"""Metrics of real gateways: who may read them, what they tell of requests, and one sum over several workers."""

import os
import signal
import threading
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support.gateway import NATIVE_HEADERS, running_gateway
from support.issued import issuer_at
from support.upstream import Answer
from support.web import call

CHAT = "/v1/chat/completions"
SANDBOX = {"operation": "chat", "provider": "sandbox", "model": "chat"}


def ask(model="sandbox/chat", **more):
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


def scrape(url):
    answer = call(url, "/metrics")
    assert answer.status == 200, answer.body
    return {
        (sample.name.removeprefix("llm_gate_"), *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def value(found, name, /, **labels):
    return found.get((name, *sorted(labels.items())), 0)


def total(found, name):
    return sum(count for (each, *_), count in found.items() if each == name)


def grown(url, ask_for, name, /, **labels):
    """Return by how much a counter grows by what is asked; it may be counted a moment after the answer."""
    before = value(scrape(url), name, **labels)
    ask_for()
    deadline = time.monotonic() + 2
    while (more := value(scrape(url), name, **labels) - before) == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    return more


def test_requests_are_counted_by_their_route(gateway):
    """The label is the template of the route, not the path that callers make up."""
    found = scrape(gateway.url)
    for n in range(3):
        call(gateway.url, f"/v1/models/sandbox/made-up-{n}")
        call(gateway.url, f"/nowhere/made-up-{n}")
    after = scrape(gateway.url)
    model = {"route": "/v1/models/{id}", "method": "GET", "status": "404"}
    nowhere = {"route": "none", "method": "GET", "status": "404"}

    assert value(after, "requests_total", **model) - value(found, "requests_total", **model) == 3
    assert value(after, "requests_total", **nowhere) - value(found, "requests_total", **nowhere) == 3
    assert "made-up" not in repr(after)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_counted(gateway, stream):
    """A call shows with its outcome, attempt and tokens; a streamed one with its first event, too."""
    before = scrape(gateway.url)
    answers = []

    def asked():
        answers.append(call(gateway.url, CHAT, ask(stream=stream)))

    assert grown(gateway.url, asked, "calls_total", **SANDBOX, outcome="ok") == 1
    answer, after = answers[0], scrape(gateway.url)
    assert answer.status == 200

    def more(name, **labels):
        return value(after, name, **labels) - value(before, name, **labels)

    assert more("call_seconds_count", **SANDBOX, outcome="ok") == 1
    assert more("attempts_total", **SANDBOX, outcome="ok") == 1
    assert more("first_event_seconds_count", **SANDBOX) == (1 if stream else 0)
    assert more("tokens_total", **SANDBOX, direction="output") > 0
    if not stream:
        assert more("tokens_total", **SANDBOX, direction="input") == answer.json["usage"]["prompt_tokens"]


def test_cost_is_counted_to_the_nano_dollar(fronted, upstream):
    """What calls cost is told as a whole number; a call whose model has no price is counted as unpriced."""
    usage = {"prompt_tokens": 1_000, "completion_tokens": 1, "total_tokens": 1_001}
    message = {"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}
    upstream.will(Answer.json({"choices": [message], "usage": usage}))
    place = {"operation": "chat", "provider": "second"}
    listed, unlisted = place | {"model": "m"}, place | {"model": "unlisted"}

    cost = grown(fronted.url, lambda: call(fronted.url, CHAT, ask("second/m")), "cost_nanos_total", **listed)
    assert cost == 150_600
    unpriced = grown(
        fronted.url,
        lambda: call(fronted.url, CHAT, ask("second/made-up")),
        "unpriced_calls_total",
        **unlisted,
    )
    assert unpriced == 1
    assert "made-up" not in repr(scrape(fronted.url))


def test_a_failure_is_counted_by_its_code(fronted, upstream):
    """A call and an attempt that fail are told apart by the error's code."""
    upstream.will(Answer.json({"error": {"message": "slow down"}}, 429))
    place = {"operation": "chat", "provider": "second", "model": "m"}
    attempts = grown(
        fronted.url,
        lambda: call(fronted.url, CHAT, ask("second/m")),
        "attempts_total",
        **place,
        outcome="rate_limit_exceeded",
    )
    calls = value(
        scrape(fronted.url),
        "calls_total",
        operation="chat",
        provider="none",
        model="none",
        outcome="rate_limit_exceeded",
    )

    assert attempts == 1
    assert calls >= 1


def test_an_answer_that_is_shown_again_is_no_call(gateway):
    """A repeated request with the same idempotency key is a request, and no second call."""
    headers = {"Idempotency-Key": "metrics-1"}

    def twice():
        for _ in range(2):
            assert call(gateway.url, CHAT, ask(), headers).status == 200

    assert grown(gateway.url, twice, "calls_total", **SANDBOX, outcome="ok") == 1


def test_gauges_show_what_is_under_way(gateway):
    """While a call is under way it counts as in flight and holds a reservation; after it, nothing does."""
    slow = [{"role": "user", "content": "Hi"}]
    body = {"model": "sandbox/chat", "messages": slow}
    process = str(gateway.process.pid)
    thread = threading.Thread(
        target=lambda: call(gateway.url, CHAT, body, {"x-llm-gate-sandbox": "delay_ms=700"}), daemon=True
    )
    thread.start()
    found, deadline = {}, time.monotonic() + 3
    while not value(found, "reservations_open", process=process) and time.monotonic() < deadline:
        found = scrape(gateway.url)
    assert value(found, "in_flight", process=process) == 1
    assert value(found, "reservations_open", process=process) == 1
    thread.join(10)
    deadline = time.monotonic() + 3
    while value(found, "reservations_open", process=process) and time.monotonic() < deadline:
        found = scrape(gateway.url)
    assert value(found, "in_flight", process=process) == 0
    assert value(found, "reservations_open", process=process) == 0
    assert ("loop_lag_seconds", ("process", process), ("quantile", "0.999")) in found


def test_everything_bounded_shows_its_bound(gateway):
    """Each queue and cache shows how much it holds, and how much it may."""
    found = scrape(gateway.url)
    held = {tuple(labels) for name, *labels in found if name == "bounded"}
    bounds = {tuple(labels) for name, *labels in found if name == "bound"}

    assert {dict(labels)["name"] for labels in bounds} >= {
        "keys",
        "standings",
        "rates",
        "places",
        "ledger_queue",
    }
    assert held == bounds


def test_metrics_name_nobody(gateway):
    """Neither a user nor an application stands in any label, whoever called."""
    call(gateway.url, "/llm-gate/v1/chat", {"messages": [{"role": "user", "content": "Hi"}]}, NATIVE_HEADERS)
    text = call(gateway.url, "/metrics").body.decode()

    assert NATIVE_HEADERS["X-User-Id"] not in text
    assert 'tests"' not in text
    assert not any(word in text for word in ("tenant=", "user=", "key=", "client"))


def test_openmetrics_goes_to_who_asks_for_it(gateway):
    """Collectors that read OpenMetrics get it; nothing is kept by those in between."""
    answer = call(gateway.url, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})

    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.body.endswith(b"# EOF\n")


def test_with_keys_it_takes_the_scope():
    """As soon as there are keys, only one with `metrics:read` opens the metrics; no tenant's own scopes do."""
    with running_gateway() as running, issuer_at(running.folder / "data") as issuer:
        assert call(running.url, "/metrics").status == 200
        reader, other = issuer.key("metrics:read"), issuer.key("inference", "usage:read", "admin")
        deadline = time.monotonic() + 5
        while call(running.url, "/metrics").status == 200 and time.monotonic() < deadline:
            time.sleep(0.05)
        refused = call(running.url, "/metrics")
        lacking = call(running.url, "/metrics", headers={"x-api-key": other})

        assert refused.status == 401
        assert lacking.status == 403
        assert b"metrics:read" in lacking.body
        assert call(running.url, "/metrics", headers={"x-api-key": reader}).status == 200
        assert call(running.url, CHAT, ask(), {"x-api-key": reader}).status == 403


def processes(found):
    return {dict(labels)["process"] for name, *labels in found if name == "in_flight"}


def test_several_workers_tell_one_sum():
    """Whichever worker is scraped, the counters are of all of them; one that is killed takes nothing with it."""
    with running_gateway(toml="[server]\nworkers = 2\n") as running:
        deadline = time.monotonic() + 10
        while len(processes(found := scrape(running.url))) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert len(processes(found)) == 2
        for _ in range(12):
            assert call(running.url, CHAT, ask()).status == 200
        seen, deadline = 0.0, time.monotonic() + 5
        while seen < 12 and time.monotonic() < deadline:
            counted = value(scrape(running.url), "calls_total", **SANDBOX, outcome="ok")
            assert counted >= seen
            seen = counted
        assert seen == 12
        # What was counted within the last second of one that is killed may be lost.
        time.sleep(1.2)
        victim = int(next(iter(processes(scrape(running.url)))))
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                found = scrape(running.url)
            except OSError:
                continue
            assert value(found, "calls_total", **SANDBOX, outcome="ok") == 12
            if str(victim) not in processes(found) and len(processes(found)) == 2:
                break
            time.sleep(0.1)
        assert len(processes(found) - {str(victim)}) == 2
        assert total(found, "retries_total") == 0
