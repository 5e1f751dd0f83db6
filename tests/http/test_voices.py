"""Voices as they are spoken: pieces go on as they come, an end is only told when it is settled, a break is a cut."""

import http.client
import json
import time
from urllib.parse import urlsplit

import openai
import pytest

from support.gateway import running_gateway
from support.upstream import Answer, fake_upstream
from support.web import call

TOML = """
    [providers.vendor]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "none" }}
    defaults = {{ speech = "s" }}
    [[providers.vendor.models]]
    name = "s"
    operations = ["speech"]
    media = {{ takes = ["voice", "format", "speed"], voices = ["ash"], formats = ["mp3"], most_characters = 100 }}
    prices = [{{ unit = "characters", per = 1_000, usd = "0.05" }}]

    [providers.second]
    dialect = "openai"
    base_url = "{url}/second/v1"
    auth = {{ kind = "none" }}
    [[providers.second.models]]
    name = "s"
    operations = ["speech"]
"""
SOUND = b"ID3" + bytes(range(256)) * 8
SPOKEN = {"model": "vendor/s", "input": "Hello there"}


@pytest.fixture(scope="module")
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(upstream):
    with running_gateway(toml=TOML.format(url=upstream.url)) as running:
        yield running


def speech(pieces, **more):
    return Answer(headers={"content-type": "audio/mpeg"}, pieces=pieces, **more)


def said(gateway, body=SPOKEN, **headers):
    return call(gateway.url, "/v1/audio/speech", body, headers)


def test_pieces_go_on_as_they_come(gateway, upstream):
    """The first bytes are there long before the last; the whole is what the vendor spoke, at the price of its text."""
    upstream.will(speech([SOUND[:1000], SOUND[1000:1500], SOUND[1500:]], pause_s=0.4))
    parts = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    started_s = time.monotonic()
    connection.request("POST", "/v1/audio/speech", json.dumps(SPOKEN), {"content-type": "application/json"})
    answer = connection.getresponse()
    first = answer.read(1000)
    first_s = time.monotonic() - started_s
    rest = answer.read()
    whole_s = time.monotonic() - started_s
    connection.close()

    assert first + rest == SOUND
    assert first_s < whole_s - 0.2
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.headers["x-llm-gate-cost-usd"] == "0.00055"
    assert answer.headers["x-llm-gate-provider"] == "vendor"
    assert upstream.seen[-1].json == {"model": "s", "input": "Hello there", "voice": "ash"}


def test_the_official_client_streams(gateway, upstream):
    """OpenAI's own client reads a streamed voice to its end."""
    upstream.will(speech([SOUND[:700], SOUND[700:]]))
    with (
        openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client,
        client.audio.speech.with_streaming_response.create(
            **SPOKEN, voice="ash", response_format="mp3"
        ) as answer,
    ):
        assert b"".join(answer.iter_bytes()) == SOUND


def test_a_voice_that_breaks_off_is_cut(gateway, upstream):
    """A vendor that breaks off in the middle leaves the caller with a broken answer, not with a short one."""
    upstream.will(speech([SOUND[:1000], SOUND[1000:]], cut=True, pause_s=0.1))
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        said(gateway)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b"<html>sorry</html>", headers={"content-type": "text/html"}),
        Answer(body=b"", headers={"content-type": "audio/mpeg"}),
        Answer.json({"error": {"message": "no", "code": "server_error"}}),
        Answer.json({"error": {"message": "no"}}, status=500),
    ],
    ids=["page", "nothing", "error with 200", "error"],
)
def test_what_is_no_voice_is_an_error_of_the_provider(gateway, upstream, answer):
    """Before the first byte everything is still an ordinary error."""
    upstream.will(answer)
    found = said(gateway)

    assert found.status in {502, 503}, found.body
    assert found.json["error"]["message"]


def test_another_vendor_speaks_where_the_first_fails(gateway, upstream):
    """Before the first byte the next target may be asked."""
    refusal = {"error": {"message": "no credit", "code": "insufficient_quota"}}
    upstream.will(Answer.json(refusal, status=429), speech([SOUND]))
    found = said(gateway, SPOKEN, **{"x-llm-gate-fallbacks": "second/s"})

    assert (found.status, found.body) == (200, SOUND)
    assert found.headers["x-llm-gate-provider"] == "second"
    assert found.headers["x-llm-gate-attempts"] == "2"


def test_what_the_model_does_not_take_is_refused(gateway, upstream):
    """A voice that is not listed, and a text that is too long, never reach the vendor."""
    upstream.will(speech([SOUND]))
    before = len(upstream.seen)
    for body, param in (
        ({**SPOKEN, "voice": "nobody"}, "voice"),
        ({**SPOKEN, "input": "x" * 101}, "input"),
        ({**SPOKEN, "instructions": "softly"}, "instructions"),
    ):
        found = said(gateway, body)
        assert (found.status, found.json["error"]["param"]) == (400, param)
    assert len(upstream.seen) == before
