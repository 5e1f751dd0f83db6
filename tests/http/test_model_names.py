"""Names of models that callers invent: too long ones are refused, and none does any harm to anybody else."""

import random

import httpx
import pytest

from llm_gate.engine.resolve import MAX_NAME_CHARS
from support.gateway import NATIVE_HEADERS, running_gateway
from support.stores import postgresql_address, postgresql_name

LETTERS = "".join(map(chr, range(0x4E00, 0x4E00 + 5_000)))


def invented(chars: int) -> str:
    """Return a name that cannot be compressed."""
    return "".join(random.Random(chars).choices(LETTERS, k=chars))  # noqa: S311 - the same every time


@pytest.fixture(scope="module")
def gateway():
    with postgresql_name() as name:
        variables = {"LLM_GATE_DATABASE_URL": postgresql_address(name), "LLM_GATE_PEPPER": "p" * 40}
        with running_gateway(variables) as running:
            yield running


def ask(gateway, model, **headers):
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.post(f"{gateway.url}/v1/chat/completions", json=body, headers=named, timeout=20)


@pytest.mark.parametrize("chars", [MAX_NAME_CHARS + 1, 3_000, 100_000])
def test_a_name_that_is_too_long_is_refused(gateway, chars):
    answer = ask(gateway, f"sandbox/{invented(chars)}")
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "model"
    named = {"prompt": {"messages": [{"role": "user", "content": "x"}]}, "fallbacks": [invented(chars)]}
    native = httpx.post(f"{gateway.url}/llm-gate/v1/chat", json=named, headers=NATIVE_HEADERS, timeout=20)
    assert native.status_code == 400


def test_the_longest_name_is_recorded_with_the_longest_user(gateway):
    longest = invented(MAX_NAME_CHARS - len("sandbox/"))
    user = invented(200)
    answer = ask(gateway, f"sandbox/{longest}")
    assert answer.status_code in {200, 400, 404, 502}
    body = {"model": f"sandbox/{longest}", "user": user, "messages": [{"role": "user", "content": "Hi"}]}
    assert httpx.post(f"{gateway.url}/v1/chat/completions", json=body, timeout=20).status_code in {
        200,
        400,
        404,
        502,
    }
    # The ledger goes on for everybody.
    for _ in range(3):
        assert ask(gateway, "sandbox/chat").status_code == 200
