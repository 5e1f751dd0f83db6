"""What metrics count, how they are written, and how several processes make one sum."""

import asyncio
import json
import os
import subprocess
import sys
import time

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from llm_gate.domain.conditions import Meters
from llm_gate.telemetry import metric_files
from llm_gate.telemetry.loop_lag import EVERY_S, LoopLag
from llm_gate.telemetry.metric_files import MetricFiles, Numbers
from llm_gate.telemetry.metrics import MAX_SERIES, Metrics

KNOWN = frozenset({("openai", "gpt-4o-mini")})
CALL = {"operation": "chat", "provider": "openai", "model": "gpt-4o-mini", "outcome": "ok", "seconds": 0.3}


def samples(metrics, accept=""):
    """Return what a scrape tells, by name and labels."""
    body, content_type = asyncio.run(metrics.scrape(accept))
    read = read_openmetrics if "openmetrics" in content_type else read_text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in read(body.decode())
        for sample in family.samples
    }


def value(found, name, /, **labels):
    """Return one sample; None where there is no such."""
    return found.get((f"llm_gate_{name}", *sorted(labels.items())))


def test_a_call_is_counted_with_all_it_came_to():
    """Its outcome, times, tokens and cost are told by operation, provider and model."""
    metrics = Metrics()
    metrics.use_models(KNOWN)
    metrics.call(**CALL, first_event_s=0.06, input_tokens=7, output_tokens=11, cost_nanos=2_500)
    metrics.call(**CALL, input_tokens=1, output_tokens=0, cost_nanos=9_007_199_254_738_000)
    metrics.call(**CALL | {"outcome": "rate_limit_exceeded"})
    found = samples(metrics)
    place = {"operation": "chat", "provider": "openai", "model": "gpt-4o-mini"}

    assert value(found, "calls_total", **place, outcome="ok") == 2
    assert value(found, "calls_total", **place, outcome="rate_limit_exceeded") == 1
    assert value(found, "call_seconds_bucket", **place, outcome="ok", le="0.25") == 0
    assert value(found, "call_seconds_bucket", **place, outcome="ok", le="0.5") == 2
    assert value(found, "call_seconds_sum", **place, outcome="ok") == pytest.approx(0.6)
    assert value(found, "first_event_seconds_count", **place) == 1
    assert value(found, "tokens_total", **place, direction="input") == 8
    assert value(found, "tokens_total", **place, direction="output") == 11
    assert value(found, "cost_nanos_total", **place) == 9_007_199_254_740_500
    assert value(found, "unpriced_calls_total", **place) == 0


def test_what_nobody_can_price_is_counted():
    """An answer without a price is unpriced; a call that came to nothing is not."""
    metrics = Metrics()
    metrics.use_models(KNOWN)
    metrics.call(**CALL, input_tokens=7)
    metrics.call(**CALL)
    metrics.call(**CALL | {"outcome": "timeout"})
    place = {"operation": "chat", "provider": "openai", "model": "gpt-4o-mini"}

    assert value(samples(metrics), "unpriced_calls_total", **place) == 2


def test_what_the_engine_tells_is_counted():
    """Attempts, repeats, fallbacks, cooldowns, hedges and calls turned away have counters of their own."""
    metrics = Metrics()
    metrics.use_models(KNOWN)
    meters: Meters = metrics
    meters.attempt("openai", "gpt-4o-mini", "chat", "timeout", 3.0)
    meters.retried("openai")
    meters.retried("openai")
    meters.fell_back("openai", "timeout")
    meters.cooled("openai", "timeout")
    meters.hedged("openai", won=True)
    meters.shed("slots")
    found = samples(metrics)
    place = {"operation": "chat", "provider": "openai", "model": "gpt-4o-mini", "outcome": "timeout"}

    assert value(found, "attempts_total", **place) == 1
    assert value(found, "attempt_seconds_sum", **place) == 3.0
    assert value(found, "retries_total", provider="openai") == 2
    assert value(found, "fallbacks_total", provider="openai", reason="timeout") == 1
    assert value(found, "cooldowns_total", provider="openai", reason="timeout") == 1
    assert value(found, "hedges_total", provider="openai", won="true") == 1
    assert value(found, "shed_total", reason="slots") == 1


def test_names_that_callers_make_up_become_no_series():
    """A model that the catalog lacks is "unlisted", an odd method "other"."""
    metrics = Metrics()
    metrics.use_models(KNOWN)
    for n in range(50):
        metrics.call(**CALL | {"model": f"made-up-{n}"})
        metrics.attempt("openai", f"made-up-{n}", "chat", "ok", 0.1)
        metrics.request("none", f"ODD{n}", 404, 0.01)
    found = samples(metrics)
    place = {"operation": "chat", "provider": "openai", "model": "unlisted", "outcome": "ok"}

    assert value(found, "calls_total", **place) == 50
    assert value(found, "attempts_total", **place) == 50
    assert value(found, "requests_total", route="none", method="other", status="404") == 50
    assert "made-up" not in repr(found)


def test_a_family_does_not_grow_without_end():
    """Beyond its cap further combinations are counted together, and nothing is lost."""
    metrics = Metrics()
    for n in range(MAX_SERIES + 10):
        metrics.fell_back("openai", f"reason-{n}")
    found = samples(metrics)
    told = {name: count for name, count in found.items() if name[0] == "llm_gate_fallbacks_total"}

    assert len(told) == MAX_SERIES + 1
    assert sum(told.values()) == MAX_SERIES + 10
    assert value(found, "fallbacks_total", provider="other", reason="other") == 10


def test_gauges_are_read_when_somebody_asks():
    """A gauge shows what is so at the scrape, under the process's name; what is bounded shows its bound beside it."""
    metrics = Metrics()
    sizes = {"reservations_open": 1}
    metrics.watch(lambda: sizes)
    metrics.watch_bound("rates", lambda: 3, lambda: 10_000)
    process = str(os.getpid())
    sizes["reservations_open"] = 4
    found = samples(metrics)

    assert value(found, "reservations_open", process=process) == 4
    assert value(found, "bounded", process=process, name="rates") == 3
    assert value(found, "bound", process=process, name="rates") == 10_000


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "text/plain; version=0.0.4"),
        ("*/*", "text/plain; version=0.0.4"),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", "application/openmetrics-text"),
        ("text/plain;q=0.5, Application/OpenMetrics-Text; version=0.0.1", "application/openmetrics-text"),
        ("application/openmetrics-text;q=0, text/plain", "text/plain; version=0.0.4"),
        ('application/openmetrics-text;version="x\r\ny: z"', "application/openmetrics-text; version=1.0.0"),
        ("text/plain;version=garbage", "text/plain; version=0.0.4"),
    ],
)
def test_the_form_is_the_one_asked_for(accept, kind):
    """OpenMetrics goes to who asks for it, the plain text to everybody else; both can be parsed."""
    metrics = Metrics()
    metrics.request("/v1/models", "GET", 200, 0.01)
    body, content_type = asyncio.run(metrics.scrape(accept))

    assert content_type.startswith(kind)
    assert body.endswith(b"# EOF\n") == ("openmetrics" in kind)
    labels = {"route": "/v1/models", "method": "GET", "status": "200"}
    assert value(samples(metrics, accept), "requests_total", **labels) == 1


WORKER = """
import asyncio, json, sys
from pathlib import Path
from llm_gate.telemetry.metrics import Metrics

metrics = Metrics(Path(sys.argv[1]))
metrics.watch(lambda: {"in_flight": 1})

async def serve():
    metrics.start()
    for line in iter(sys.stdin.readline, ""):
        for _ in range(int(line)):
            metrics.retried("openai")
        body, _ = await metrics.scrape("")
        print(json.dumps(body.decode()), flush=True)
    await metrics.close()

asyncio.run(serve())
"""


class Worker:
    """A process of its own that counts what it is told to."""

    def __init__(self, folder):
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def count(self, times):
        """Count so often, then scrape: the sum of all, and the processes that have gauges."""
        self.process.stdin.write(f"{times}\n")
        self.process.stdin.flush()
        families = read_text(json.loads(self.process.stdout.readline()))
        found = [sample for family in families for sample in family.samples]
        total = sum(sample.value for sample in found if sample.name == "llm_gate_retries_total")
        return total, {s.labels["process"] for s in found if s.name == "llm_gate_in_flight"}

    def end(self, *, kill=False):
        """End it, in good order or not."""
        if kill:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


def test_workers_tell_the_sum_whoever_is_asked(tmp_path):
    """Each worker tells what all have counted, never less than another told before, also after some are gone."""
    folder = tmp_path / "metrics" / "server"
    one, two = Worker(folder), Worker(folder)
    three = None
    try:
        assert one.count(5)[0] == 5
        assert two.count(7)[0] == 12
        total, processes = one.count(1)
        assert total == 13
        assert processes == {str(one.process.pid), str(two.process.pid)}
        two.end(kill=True)
        assert one.count(0) == (13, {str(one.process.pid)})
        three = Worker(folder)
        assert three.count(2)[0] == 15
        deadline = time.monotonic() + 5
        # Somebody adds the numbers of the one that is gone to the rest, and its files go.
        while len(list(folder.glob("*.lock"))) > 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(list(folder.glob("*.numbers"))) == 2
        assert three.count(0)[0] == 15
        one.end()
        assert three.count(1) == (16, {str(three.process.pid)})
    finally:
        for worker in (one, two, three):
            if worker is not None and worker.process.poll() is None:
                worker.end(kill=True)


def test_numbers_are_added_once(tmp_path):
    """A process whose file outlived its adding is not added again."""
    gone = MetricFiles(tmp_path / "a", "1-gone")
    gone.publish(Numbers(serial=1, counts={"retries": [(("openai",), [5.0])]}))
    kept = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    gone.give_back()
    here = MetricFiles(tmp_path / "a", "2-here")
    here.publish(Numbers(serial=1))
    here.fold()
    # As after a crash between the two steps.
    for name, data in kept.items():
        if name.startswith("1-gone"):
            (tmp_path / "a" / name).write_bytes(data)
    here.fold()

    sums = metric_files.added(numbers.counts for numbers in here.others())
    assert sums == {"retries": [(("openai",), [5.0])]}
    here.give_back()


def test_what_is_told_is_never_taken_back(tmp_path):
    """Numbers that were read earlier do not replace those that were read later."""
    files = MetricFiles(tmp_path / "a", "1-one")
    files.publish(Numbers(serial=2, counts={"retries": [(("openai",), [9.0])]}))
    files.publish(Numbers(serial=1, counts={"retries": [(("openai",), [8.0])]}))
    other = MetricFiles(tmp_path / "a", "2-two")
    other.publish(Numbers(serial=1))

    assert metric_files.added(each.counts for each in other.others()) == {"retries": [(("openai",), [9.0])]}
    files.give_back()
    other.give_back()


def test_folders_of_servers_long_gone_are_removed(tmp_path):
    """A folder that nobody has written to for hours goes; one of a server that only slept is made again."""
    old = MetricFiles(tmp_path / "old", "1-old")
    old.publish(Numbers(serial=1))
    past = time.time() - 10_000
    os.utime(tmp_path / "old", (past, past))
    new = MetricFiles(tmp_path / "new", "2-new")
    new.publish(Numbers(serial=1))
    assert not (tmp_path / "old").exists()
    old.publish(Numbers(serial=2, counts={"retries": [(("openai",), [1.0])]}))

    assert (tmp_path / "old" / "1-old.lock").exists()
    assert (tmp_path / "old" / "1-old.numbers").exists()
    old.give_back()
    new.give_back()


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_the_sum(tmp_path):
    """A worker without a place for its numbers tells its own."""
    (tmp_path / "metrics").write_text("a file, no folder")
    metrics = Metrics(tmp_path / "metrics" / "server")
    metrics.retried("openai")

    assert value(samples(metrics), "retries_total", provider="openai") == 1


def test_a_blocked_loop_shows_in_its_lag():
    """Whoever holds the event loop up for a fifth of a second makes it late by that."""

    async def block():
        lag = LoopLag()
        assert lag.quantiles() == {}
        lag.start()
        await asyncio.sleep(4 * EVERY_S)
        time.sleep(0.2)
        await asyncio.sleep(2 * EVERY_S)
        lag.stop()
        return lag.quantiles()

    late = asyncio.run(block())
    assert late["1"] >= 0.1
    assert late.keys() == {"0.999", "1"}
