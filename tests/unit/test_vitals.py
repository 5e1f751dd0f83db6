"""What is remembered of a place's attempts, and what is made of it."""

import pytest

from llm_gate.domain.conditions import LastError, Vitals
from llm_gate.domain.errors import ContentFiltered, ProviderTimeout, ProviderUnavailable
from llm_gate.engine.vitals import REMEMBERED, VitalSigns


def failure(message="down", kind=ProviderUnavailable):
    return kind(message, provider="p", model="m", status=503)


def test_nothing_is_known_at_first():
    """Before the first attempt there are no rates and no latencies."""
    signs = VitalSigns()
    assert signs.vitals(under_way=2, waiting=3) == Vitals(under_way=2, waiting=3)
    assert signs.latency_ms is None
    assert signs.expected_s is None


def test_percentiles_are_of_successes():
    """Of 100 answers of 1 to 100 ms the middle is 50 ms, and 95 of them take at most 95 ms."""
    signs = VitalSigns()
    for n in range(100):
        signs.answered((100 - n) / 1000)
    for _ in range(25):
        signs.failed(failure(), 7)
    vitals = signs.vitals(0, 0)
    assert (vitals.p50_ms, vitals.p95_ms) == (pytest.approx(50), pytest.approx(95))
    assert (vitals.requests, vitals.failures, vitals.success_rate) == (125, 25, 0.8)
    assert signs.expected_s == pytest.approx(0.0505)


def test_one_answer_is_every_percentile():
    """A single answer is the middle and the slow end at once."""
    signs = VitalSigns()
    signs.answered(0.25)
    vitals = signs.vitals(0, 0)
    assert (vitals.p50_ms, vitals.p95_ms, vitals.success_rate) == (250.0, 250.0, 1.0)


def test_a_percentile_is_never_between_two_answers():
    """Of ten answers the slowest is what 95 % do not exceed, of three the second is the middle."""
    signs = VitalSigns()
    for n in (3, 1, 2):
        signs.answered(n)
    assert signs.vitals(0, 0).p50_ms == 2000
    for n in range(4, 11):
        signs.answered(n)
    assert signs.vitals(0, 0).p95_ms == 10_000


def test_old_attempts_are_forgotten_but_counted():
    """The rate is of the last attempts alone; the counts are of all."""
    signs = VitalSigns()
    for _ in range(1000):
        signs.failed(failure(), 1)
    assert signs.vitals(0, 0).success_rate == 0.0
    for _ in range(REMEMBERED):
        signs.answered(0.01)
    vitals = signs.vitals(0, 0)
    assert (vitals.success_rate, vitals.requests, vitals.failures) == (1.0, 1000 + REMEMBERED, 1000)


def test_the_last_five_errors_newest_first():
    """Errors are kept with their code, status and time, and long or telling texts are cut and masked."""
    signs = VitalSigns()
    for n in range(7):
        signs.failed(failure(f"down {n}"), n)
    signs.failed(failure("key sk-abcdef123456 " + "x" * 2000, ProviderTimeout), 99)
    errors = signs.vitals(0, 0).last_errors
    assert [each.at_ms for each in errors] == [99, 6, 5, 4, 3]
    assert errors[1] == LastError(at_ms=6, code="provider_unavailable", message="down 6", status=503)
    assert errors[0].code == "provider_timeout"
    assert "sk-abcdef" not in errors[0].message
    assert len(errors[0].message) <= 500


def test_a_refused_request_is_no_failure():
    """What the vendor refuses is shown among the errors, and does not lower the rate."""
    signs = VitalSigns()
    signs.answered(0.1)
    signs.failed(failure("not this", ContentFiltered), 5)
    vitals = signs.vitals(0, 0)
    assert (vitals.requests, vitals.failures, vitals.success_rate) == (2, 0, 1.0)
    assert vitals.last_errors[0].code == "content_filter"


def test_the_newest_latency_weighs_most():
    """The mean for routing follows a place that becomes slow within a few answers."""
    signs = VitalSigns()
    for _ in range(100):
        signs.answered(0.1)
    assert signs.latency_ms == pytest.approx(100)
    for _ in range(10):
        signs.answered(1.0)
    assert signs.latency_ms > 850
