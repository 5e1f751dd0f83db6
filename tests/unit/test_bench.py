"""Promises of the benchmark's own parts: honest arithmetic, an upstream clients can read, counts that are right."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import anthropic
import openai
import pytest

from bench import answers
from bench.__main__ import QUICK
from bench.figures import FIGURES, percentile, summarise, table
from bench.processes import cpu_nanos, rss_bytes, which

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the benchmark reads /proc")


@pytest.fixture(scope="module")
def upstream():
    """Run the fake upstream and return its port."""
    with running("bench.upstream") as process:
        yield int(process.stdout.readline())


@contextmanager
def running(module):
    with subprocess.Popen([sys.executable, "-m", module], stdout=subprocess.PIPE, cwd=ROOT) as process:
        try:
            yield process
        finally:
            process.kill()


def load(port, *arguments):
    """Run the load generator and return what it saw."""
    command = [sys.executable, "-m", "bench.load", "--port", str(port), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=30)
    return json.loads(done.stdout)


def by_name(rounds):
    return {row.figure.name: row for row in summarise(rounds)}


def test_percentiles_are_nearest_ranks():
    """A percentile is one of the values, and unknown without any."""
    values = [float(number) for number in range(100, 0, -1)]

    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [51.0, 100.0, 100.0]
    assert percentile([], 0.5) is None


def test_a_ratio_is_the_median_of_the_rounds_own_ratios():
    """Each round is compared with nginx of the same round, so that a slow minute does not count."""
    rounds = [
        {"nginx": {"openai": 10_000.0}, "gateway": {"openai": 90_000.0}},
        {"nginx": {"openai": 20_000.0}, "gateway": {"openai": 160_000.0}},
        {"nginx": {"openai": 40_000.0}, "gateway": {"openai": 120_000.0}},
    ]

    row = by_name(rounds)["openai"]

    assert (row.reference, row.subject, row.ratio) == (20.0, 120.0, 8.0)


def test_a_translated_call_is_compared_with_the_plain_one():
    """Nginx translates nothing: what it takes for a plain request is the measure for all of them."""
    rounds = [{"nginx": {"openai": 10_000.0}, "gateway": {"gemini": 140_000.0}}]

    row = by_name(rounds)["gemini"]

    assert (row.reference, row.subject, row.ratio) == (10.0, 140.0, 14.0)


def test_added_times_leave_the_direct_way_out():
    """What a contender adds is its own time less that of the load without it; it has no ratio."""
    rounds = [
        {
            "direct": {"first_event": 0.001},
            "nginx": {"first_event": 0.0015},
            "gateway": {"first_event": 0.003},
        }
    ]

    row = by_name(rounds)["first_event"]

    assert (row.reference, row.subject, row.ratio) == (pytest.approx(0.5), pytest.approx(2.0), None)


def test_what_was_not_measured_stays_empty():
    """The table has a row for every figure; an unknown value is an empty cell, never a zero."""
    lines = table(summarise([{"nginx": {}, "gateway": {"import": 0.0123}}])).splitlines()

    assert len(lines) == 2 + len(FIGURES)
    assert "| `import llm_gate`: ms |  | 12.3 |  |" in lines
    assert lines[2].endswith("|  |  |  |")


def test_the_upstream_speaks_openai(upstream):
    """OpenAI's client reads the fake upstream: a whole answer, and a stream of as many events as were asked for."""
    with openai.OpenAI(base_url=f"http://127.0.0.1:{upstream}/v1", api_key="k", max_retries=0) as client:
        ask = {"messages": [{"role": "user", "content": "Hello"}]}
        whole = client.chat.completions.create(model="any", **ask)
        chunks = list(client.chat.completions.create(model="stream-64-1", stream=True, **ask))

    assert whole.choices[0].message.content.startswith("Check the system log")
    assert whole.usage.total_tokens == 155
    assert len(chunks) == 64 + answers.CLOSING_EVENTS - 1  # the client keeps the last, [DONE], to itself
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "The" + 63 * " word"
    assert chunks[-1].usage.completion_tokens == 64


def test_the_upstream_speaks_anthropic(upstream):
    """Anthropic's client reads the fake upstream."""
    with anthropic.Anthropic(base_url=f"http://127.0.0.1:{upstream}", api_key="k", max_retries=0) as client:
        message = client.messages.create(
            model="any", max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
        )

    assert message.content[0].text.startswith("Check the system log")
    assert message.usage.output_tokens == 64


def test_the_upstream_says_where_it_has_nothing(upstream):
    """An unknown address is answered with 404."""
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{upstream}/v1", api_key="k", max_retries=0)
    with client, pytest.raises(openai.NotFoundError):
        client.models.list()


def test_the_load_counts_every_event_of_a_stream(upstream):
    """Twelve streams of eight events and the closing ones are counted exactly, over connections used again."""
    seen = load(upstream, "--streams", "4", "--ramp", "0", "--model", "stream-8-1", "--answers", "12")

    # The other three streams may have begun once more before the end.
    assert seen["faults"] == 0
    assert seen["answers"] == 12
    assert 12 * 11 <= seen["events"] < 16 * 11
    assert 0 < seen["first_event_p50_s"] < 5


def test_a_single_stream_is_counted_to_the_event(upstream):
    """One stream of 64 events is 64 and the closing ones, wherever reads cut it."""
    seen = load(upstream, "--streams", "1", "--ramp", "0", "--model", "stream-64-1", "--answers", "3")

    assert (seen["answers"], seen["events"], seen["faults"]) == (3, 3 * 67, 0)


def test_the_load_keeps_its_rate(upstream):
    """At 100 requests a second, half a second holds about fifty answers; the watched process is accounted for."""
    seen = load(upstream, "--rate", "100", "--warm", "0.1", "--seconds", "0.5", "--watch", str(os.getpid()))

    assert seen["faults"] == 0
    assert 25 <= seen["answers"] <= 75
    assert seen["cpu_nanos"] >= 0
    assert seen["rss_bytes"] > 1_000_000


def test_a_wrong_answer_is_a_fault(upstream):
    """A stream that was asked for and did not come is counted as a fault, never as a fast answer."""
    seen = load(upstream, "--streams", "1", "--ramp", "0", "--model", "no-stream", "--answers", "2")

    assert (seen["answers"], seen["faults"]) == (0, 2)


def test_cpu_time_and_memory_of_a_process():
    """CPU time grows while this process works; its memory is what an interpreter needs."""
    before = cpu_nanos(os.getpid())
    sum(range(1_000_000))

    assert cpu_nanos(os.getpid()) > before
    assert 5_000_000 < rss_bytes(os.getpid()) < 5_000_000_000


def test_requests_and_answers_are_of_the_documented_size():
    """A request is about half a kilobyte, an answer between half a kilobyte and one."""
    bodies = (answers.request_body("openai/gpt-4o-mini"), answers.OPENAI, answers.GEMINI, answers.ANTHROPIC)

    assert [450 <= len(body) <= 1000 for body in bodies] == [True] * 4


@pytest.mark.prove
@pytest.mark.skipif(
    which("nginx") is None or which("wrk") is None or len(os.sched_getaffinity(0)) < 2,
    reason="needs nginx, wrk and two cores",
)
def test_a_quick_run_measures_every_figure(tmp_path):
    """A smoke run of the whole benchmark leaves a value for every figure."""
    out = tmp_path / "out.json"
    command = [sys.executable, "-m", "bench", "--quick", "--out", str(out)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=90, stdout=subprocess.DEVNULL)
    document = json.loads(out.read_text(encoding="utf-8"))

    assert document["sizes"]["rounds"] == QUICK.rounds
    assert {name for name, f in document["figures"].items() if f["gateway"] is None} == set()
