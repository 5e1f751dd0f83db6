"""Guards of the operator's own, over the installed command and the sandbox; and control characters in bodies."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from support.gateway import NATIVE_HEADERS, RunningGateway, running_gateway

TOML = """
[guards]
input = ["support.guarding:no_secrets"]
output = ["support.guarding:no_echo"]
timeout_s = 0.5
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[RunningGateway]:
    tests = str(Path(__file__).parents[1])
    with running_gateway({"PYTHONPATH": tests}, toml=TOML) as running:
        yield running


def ask(gateway: RunningGateway, text: str, **more: object) -> httpx.Response:
    body = {"model": "sandbox/chat", "messages": [{"role": "user", "content": text}], **more}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=10)


def records(gateway: RunningGateway) -> int:
    with closing(sqlite3.connect(gateway.folder / "data" / "llm-gate.db")) as connection:
        return int(connection.execute("select count(*) from usage_record").fetchone()[0])


def test_what_passes_passes(gateway):
    assert ask(gateway, "Hello").status_code == 200
    assert ask(gateway, "Hello", stream=True).text.rstrip().endswith("data: [DONE]")


@pytest.mark.parametrize("stream", [False, True])
def test_a_refused_prompt_is_never_sent(gateway, stream):
    before = records(gateway)
    answer = ask(gateway, "something forbidden", stream=stream)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "guard_refused"
    assert "forbidden words in the input" in answer.json()["error"]["message"]
    assert records(gateway) == before


def test_every_surface_and_operation_is_guarded(gateway):
    text = "forbidden"
    native = {"prompt": {"messages": [{"role": "user", "content": text}]}}
    message = {"model": "sandbox/chat", "max_tokens": 9, "messages": [{"role": "user", "content": text}]}
    asked = [
        ("/v1/embeddings", {"model": "sandbox/embedding", "input": [text]}, {}),
        ("/v1/completions", {"model": "sandbox/chat", "prompt": text}, {}),
        ("/v1/responses", {"model": "sandbox/chat", "input": text}, {}),
        ("/v1/messages", message, {"anthropic-version": "2023-06-01"}),
        ("/llm-gate/v1/chat", native, NATIVE_HEADERS),
        ("/llm-gate/v1/chat/stream", native, NATIVE_HEADERS),
        ("/llm-gate/v1/embeddings", {"content": {"texts": [text]}}, NATIVE_HEADERS),
    ]
    for path, body, headers in asked:
        answer = httpx.post(gateway.url + path, json=body, headers=headers, timeout=10)
        assert answer.status_code == 400, path
        assert "forbidden words" in answer.text


def test_a_refused_answer_is_paid_and_not_shown(gateway):
    before = records(gateway)
    answer = ask(gateway, "say parrot")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "guard_refused"
    assert records(gateway) == before + 1


def test_a_refused_stream_does_not_end_as_a_complete_one(gateway):
    answer = ask(gateway, "say parrot", stream=True)
    assert answer.status_code == 200
    assert "[DONE]" not in answer.text
    last = json.loads(answer.text.strip().rsplit("data: ", 1)[1])
    assert last["error"]["code"] == "guard_refused"


@pytest.mark.parametrize("text", ["a broken guard", "a slow guard"])
def test_a_guard_without_a_verdict_lets_nothing_pass(gateway, text):
    before = records(gateway)
    answer = ask(gateway, text)
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "guard_failed"
    assert text not in answer.text
    assert records(gateway) == before
    assert not any(text in line for line in gateway.log)


@pytest.mark.parametrize("name", ["nowhere.at_all:guard", "support.guarding:nothing"])
def test_a_guard_that_is_not_there_stops_the_start(name):
    tests = str(Path(__file__).parents[1])
    with (
        pytest.raises(AssertionError, match=r"guards\.input\[0\]"),
        running_gateway({"PYTHONPATH": tests}, toml=f'[guards]\ninput = ["{name}"]\n'),
    ):
        pass


@pytest.mark.parametrize("escape", [r"\u0000", r"\u0001", r"\u001F", r"\u000e"])
def test_control_characters_are_refused_everywhere(gateway, escape):
    body = '{"model": "sandbox/chat", "messages": [{"role": "user", "content": "a' + escape + 'b"}]}'
    headers = {"content-type": "application/json"}
    for path in ("/v1/chat/completions", "/v1/messages"):
        answer = httpx.post(gateway.url + path, content=body, headers=headers, timeout=10)
        assert answer.status_code == 400
        assert f"U+{escape[2:].upper()}" in answer.text


@pytest.mark.parametrize("text", [r"a\tb\nc\rd\u001b[1mbold\u0008", r"a \\u0000 in words", r"\u00e9\u0041"])
def test_what_people_and_terminals_write_passes(gateway, text):
    body = '{"model": "sandbox/chat", "messages": [{"role": "user", "content": "' + text + '"}]}'
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{gateway.url}/v1/chat/completions", content=body, headers=headers, timeout=10)
    assert answer.status_code == 200
