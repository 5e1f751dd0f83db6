"""The page on extending is true: following it word by word adds a vendor."""

import re
import shlex
from pathlib import Path

import pytest

from support.forking import clean_environment, run_command
from support.gateway import running_gateway
from support.upstream import Answer, fake_upstream
from support.web import call

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
SECTION = "A compatible vendor: TOML only"
ADDRESS, PAGE_VENDOR = "http://127.0.0.1:8080", "http://127.0.0.1:9000"
KEY = "second-key-0123456789"
FLAGS = {"-s", "-sN"}

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
CHAT = {
    "choices": [{"message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
VECTOR = {
    "data": [{"index": 0, "embedding": [0.5, 0.25]}],
    "usage": {"prompt_tokens": 1000, "total_tokens": 1000},
}
STREAM = Answer.events(
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":"stop"}]}\n\n',
    b"data: [DONE]\n\n",
)


def section():
    """Return the section as its code blocks, by language, in order."""
    text = PAGE.read_text(encoding="utf-8").partition(f"\n## {SECTION}\n")[2].partition("\n## ")[0]
    found = {"toml": [], "bash": []}
    for language, block in _FENCE.findall(text):
        found[language].append(block)
    return found


def commands():
    """Return each command line of the section, split into words."""
    joined = "".join(section()["bash"]).replace("\\\n", " ")
    return [shlex.split(line) for line in joined.splitlines() if line]


def curl(words, url):
    """Make the call that a curl command line of the page makes."""
    body, headers, path = None, {}, None
    rest = iter(words[1:])
    for word in rest:
        if word == "-H":
            name, _, value = next(rest).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(rest).encode()
        elif word not in FLAGS:
            assert word.startswith(f"{ADDRESS}/")
            path = word.removeprefix(ADDRESS)
    return call(url, path, body, headers)


@pytest.fixture(scope="module")
def vendor():
    """Run the vendor that is to be added."""
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="module")
def toml(vendor):
    """Return the page's file, with the vendor's real address."""
    block = section()["toml"][0]
    assert block.count(PAGE_VENDOR) == 1
    return block.replace(PAGE_VENDOR, vendor.url)


@pytest.fixture(scope="module")
def environment():
    """Return what the page says to export."""
    return dict(pair.split("=", 1) for words in commands() if words[0] == "export" for pair in words[1:])


@pytest.fixture(scope="module")
def gateway(toml, environment):
    """Start the gateway as the page says."""
    assert ["llm-gate", "serve"] in commands()
    with running_gateway(environment, toml=toml) as running:
        yield running


def test_the_commands_of_the_page_see_the_vendor(toml, environment, tmp_path):
    """`check` finds no fault and lists the new provider and its alias, and `models` its models with prices."""
    (tmp_path / "llm-gate.toml").write_text(toml, encoding="utf-8")
    said = [
        run_command(*words[1:], folder=tmp_path, environment=clean_environment(environment)).stdout
        for words in commands()
        if words[0] == "llm-gate" and words[1] != "serve"
    ]

    assert said[0] == ("ok\nfiles read: llm-gate.toml\nproviders usable: sandbox, second\naliases: best\n")
    assert [" ".join(line.split()) for line in said[1].splitlines()[1:]] == [
        "second/m chat 32,000 0.15 0.6",
        "second/e embedding - 0.02 -",
    ]


def test_the_calls_of_the_page_reach_the_vendor(vendor, gateway):
    """Each curl command of the page is answered by the new vendor, under its key, at its price."""
    calls = [words for words in commands() if words[0] == "curl"]
    vendor.will(Answer.json(CHAT), STREAM, Answer.json(CHAT), Answer.json(CHAT), Answer.json(VECTOR))
    openai, stream, native, anthropic, embedding = [curl(words, gateway.url) for words in calls]

    assert [answer.status for answer in (openai, stream, native, anthropic, embedding)] == [200] * 5
    assert {answer.headers["x-llm-gate-provider"] for answer in (openai, stream, native, embedding)} == {
        "second"
    }
    assert [seen.headers["authorization"] for seen in vendor.seen] == [f"Bearer {KEY}"] * 5
    assert [seen.json["model"] for seen in vendor.seen] == ["m", "m", "m", "m", "e"]
    assert openai.json["choices"][0]["message"]["content"] == "Hi"
    assert openai.headers["x-llm-gate-cost-usd"] == "0.00021"
    assert stream.events[-1] == "[DONE]"
    assert anthropic.json["content"] == [{"type": "text", "text": "Hi"}]
    assert embedding.json["data"][0]["embedding"] == [0.5, 0.25]
    assert embedding.headers["x-llm-gate-cost-usd"] == "0.00002"
    assert native.json["cost"]["token"]["total"] == 0.00021
