"""Promises of the one classification of vendor failures, as the OpenAI dialect reads them."""

import json

import pytest

from llm_gate.dialects._failures import retry_after_s
from llm_gate.dialects.openai_errors import decode_error, encode_error, error_in_success
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    ContextTooLong,
    ProviderAuthFailed,
    ProviderModelGone,
    ProviderQuotaExhausted,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from support.targets import CREDENTIAL, make_reply, make_target

TARGET = make_target(deployment="wire-name")


def error(status, body=b"", **headers):
    return decode_error(make_reply(body, status, **headers), TARGET)


def wire(code=None, kind=None, message="What went wrong.", param=None):
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (429, wire("insufficient_quota", "insufficient_quota"), ProviderQuotaExhausted),
        (429, wire(None, "insufficient_quota"), ProviderQuotaExhausted),
        (403, wire("billing_not_active"), ProviderQuotaExhausted),
        (400, wire("billing_hard_limit_reached"), ProviderQuotaExhausted),
        (402, {"error": "out of credit"}, ProviderQuotaExhausted),
        (429, wire("rate_limit_exceeded", "requests"), ProviderRateLimited),
        (429, wire("429"), ProviderRateLimited),
        (429, {"error": {"code": "RateLimitReached", "message": "m", "details": "m"}}, ProviderRateLimited),
        (429, b"slow down", ProviderRateLimited),
        (429, b"", ProviderRateLimited),
        (408, b"", ProviderTimeout),
        (504, b"<html>gateway</html>", ProviderTimeout),
        (409, b"", ProviderUnavailable),
        (500, wire(None, "server_error"), ProviderUnavailable),
        (502, b"<html>bad gateway</html>", ProviderUnavailable),
        (503, {"message": "overloaded"}, ProviderUnavailable),
        (529, wire("overloaded_error"), ProviderUnavailable),
        (599, b"\xff\xfe", ProviderUnavailable),
        (500, wire("context_length_exceeded"), ProviderUnavailable),
        (500, wire("rate_limit_exceeded"), ProviderRateLimited),
        (401, wire("invalid_api_key", "invalid_request_error"), ProviderAuthFailed),
        (401, {"error": {"code": "401", "message": "Access denied"}}, ProviderAuthFailed),
        (401, {"detail": "Invalid API Key"}, ProviderAuthFailed),
        (401, b"Unauthorized", ProviderAuthFailed),
        (403, {"error": "no scope"}, ProviderAuthFailed),
        (400, wire("invalid_api_key"), ProviderAuthFailed),
        (498, b"", ProviderAuthFailed),
        (404, wire("model_not_found"), ProviderModelGone),
        (404, {"error": {"code": "DeploymentNotFound", "message": "m"}}, ProviderModelGone),
        (404, b"Not Found", ProviderModelGone),
        (400, wire("model_not_found", "invalid_request_error", param="model"), ProviderModelGone),
        (400, wire("model_not_supported"), ProviderModelGone),
        (400, wire("model_decommissioned"), ProviderModelGone),
        (
            400,
            {"object": "error", "message": "m", "type": "invalid_model", "code": "1500"},
            ProviderModelGone,
        ),
        (400, wire(None, "invalid_request_error"), ProviderRejected),
        (413, b"", ProviderRejected),
        (422, {"detail": [{"loc": ["body"], "msg": "bad"}]}, ProviderRejected),
        (400, {"error": ["field required"]}, ProviderRejected),
        (400, [], ProviderRejected),
        (400, [wire("context_length_exceeded")], ContextTooLong),
        (400, wire("context_length_exceeded", "invalid_request_error"), ContextTooLong),
        (400, wire("content_filter", param="prompt"), ContentFiltered),
        (
            400,
            {"error": {"code": "x", "innererror": {"code": "ResponsibleAIPolicyViolation"}}},
            ContentFiltered,
        ),
        (400, wire("content_policy_violation"), ContentFiltered),
        (302, b"", BadProviderResponse),
        (399, {"error": None}, BadProviderResponse),
    ],
)
def test_status_and_code_decide(status, body, expected):
    """Every kind of failure becomes the class that says what can be done about it."""
    found = error(status, body)
    assert type(found) is expected
    assert (found.provider, found.model, found.status) == ("vendor", "wire-name", status)


@pytest.mark.parametrize("text", ["429 quota exceeded", "rate limit", "context_length_exceeded", "api key"])
def test_text_never_decides(text):
    """Words in a message change nothing: a 400 stays a refusal of this request."""
    assert type(error(400, wire(message=text))) is ProviderRejected


def test_what_the_error_carries():
    """Message, parameter, code and wait of the vendor are kept."""
    found = error(429, wire("rate_limit_exceeded", "tokens", "Slow\n down", "messages"), retry_after="7")
    assert found.message == "provider 'vendor' limits the rate of requests: Slow down"
    assert (found.detail, found.param, found.vendor_code, found.retry_after_s) == (
        "Slow down",
        "messages",
        "rate_limit_exceeded",
        7.0,
    )


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            401,
            wire(message="Incorrect key sk-abc"),
            "provider 'vendor' refused the gateway's credential (upstream status 401)",
        ),
        (404, b"", "provider 'vendor' does not know the model or deployment 'wire-name'"),
        (402, b"", "the gateway's account at provider 'vendor' is exhausted"),
        (
            400,
            {"error": {"message": {"detail": "d"}}},
            'provider \'vendor\' refused the request: {"detail":"d"}',
        ),
        (503, b"<!doctype html><p>x", "provider 'vendor' failed (upstream status 503)"),
        (503, b"try later", "provider 'vendor' failed (upstream status 503): try later"),
    ],
)
def test_messages_say_who_and_what(status, body, message):
    """The sentence names provider and cause; HTML says nothing, and a refused credential keeps its text to itself."""
    assert error(status, body).message == message


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
@pytest.mark.parametrize("text", [f"bad key {CREDENTIAL}", "bad key sk-proj-abc****xyz", "Bearer abc.def"])
def test_no_error_shows_a_credential(status, text):
    """A credential that a vendor quotes back appears nowhere in the error."""
    for body in (wire(message=text), text.encode(), {"error": text}, {"error": [text]}):
        found = error(status, body)
        shown = f"{found.message} {found.detail} {found!r} {found}"
        assert CREDENTIAL not in shown
        assert "xyz" not in shown
        assert "abc.def" not in shown


def test_an_unusual_credential_is_removed_too():
    """The very credential of the deployment is removed, whatever it looks like."""
    assert CREDENTIAL not in error(400, wire(message=f"({CREDENTIAL})")).message
    assert "[redacted]" in error(400, wire(message=f"x{CREDENTIAL}y")).message


def test_long_messages_are_shortened():
    """No more than an excerpt of a vendor's text is kept."""
    assert len(error(400, wire(message="ab " * 5000)).detail) == 500
    assert len(error(500, b"ab " * 5000).detail) == 500


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "0", "retry-after": "1"}, 1.0),
        ({"retry-after-ms": "2500", "retry-after": "1"}, 2.5),
        ({"retry-after-ms": "soon", "retry-after": "3"}, 3.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 30.0),
        ({"retry-after": "Fri, 20 Nov 2026 11:59:00 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, 0.0),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 2099 12:00:30 GMT", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 -0000", "date": "Fri, 20 Nov 2026 12:00:00 GMT"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 12:00:30 GMT", "date": "today"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "1e12"}, None),
        ({"retry-after": "9" * 400}, None),
    ],
)
def test_wait_hints(headers, wait_s):
    """Seconds, milliseconds and dates are read, the longer of two counts, and nonsense counts for nothing."""
    assert retry_after_s(headers) == wait_s


@pytest.mark.parametrize(
    ("value", "expected", "status"),
    [
        ({"message": "m", "code": 429}, ProviderRateLimited, 429),
        ({"message": "m", "code": "400"}, ProviderRejected, 400),
        ({"message": "m", "status_code": 400, "type": "invalid_request_error"}, ProviderRejected, 400),
        ({"message": "m", "type": "server_error"}, ProviderUnavailable, 502),
        ({"message": "m", "code": "content_filter", "status": 400}, ContentFiltered, 400),
        ({"message": "m", "code": "content_filter"}, ContentFiltered, 400),
        ({"message": "m", "type": "insufficient_quota"}, ProviderQuotaExhausted, 502),
        ("plain text", ProviderUnavailable, 502),
        ({}, ProviderUnavailable, 502),
        ({"code": True}, ProviderUnavailable, 502),
        ([], ProviderUnavailable, 502),
        (7, ProviderUnavailable, 502),
    ],
)
def test_errors_inside_a_success(value, expected, status):
    """An error inside a 200 counts as the status it names, else as the vendor's own failure."""
    found = error_in_success(json.dumps(value).encode(), TARGET)
    assert (type(found), found.status) == (expected, status)


def test_an_unreadable_error_inside_a_success():
    """An error that is no JSON is still the vendor's failure."""
    assert type(error_in_success(b"{", TARGET)) is ProviderUnavailable
    assert type(error_in_success(b"[" * 100_000, TARGET)) is ProviderUnavailable
    assert type(error(400, b"[" * 100_000)) is ProviderRejected


def test_errors_as_written():
    """An error body has exactly the four documented fields."""
    assert json.loads(encode_error("Größe", kind="invalid_request_error", code=None, param="messages")) == {
        "error": {"message": "Größe", "type": "invalid_request_error", "param": "messages", "code": None}
    }
