"""How providers are reached: certificates, redirects, bounded answers, credentials in headers only."""

import pytest

from support.forking import clean_environment, run_command
from support.gateway import running_gateway
from support.upstream import CERTIFICATE, Answer, fake_upstream
from support.web import call

CHAT = "/v1/chat/completions"
ASK = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}
GOOD = {"choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
KEY = "sk-fake-0123456789abcdef"


@pytest.fixture(scope="module")
def secure():
    """Run a provider under a certificate that nobody trusts."""
    with fake_upstream(tls=True) as running:
        yield running


def environment(secure, **more):
    return {"OPENAI_API_KEY": KEY, "LLM_GATE_OPENAI_BASE_URL": f"{secure.url}/v1", **more}


def test_an_untrusted_certificate_is_refused(secure):
    """By default no call is made to a provider whose certificate is not trusted."""
    secure.will(Answer.json(GOOD))
    with running_gateway(environment(secure)) as strict:
        answer = call(strict.url, CHAT, ASK)

    assert answer.status == 503
    assert "certificate" in answer.json["error"]["message"]
    assert secure.seen == []


def test_verification_can_be_switched_off_for_this_machine_only(secure):
    """HTTPX_CLIENT_VERIFY=False counts for loopback addresses."""
    secure.will(Answer.json(GOOD))
    with running_gateway(environment(secure, HTTPX_CLIENT_VERIFY="False")) as lax:
        assert call(lax.url, CHAT, ASK).status == 200


def test_a_ca_file_makes_a_certificate_trusted(secure):
    """A ca_file of the provider is the way for certificates of one's own."""
    secure.will(Answer.json(GOOD))
    toml = f'[providers.openai]\nca_file = "{CERTIFICATE}"\n'
    with running_gateway(environment(secure), toml=toml) as trusting:
        assert call(trusting.url, CHAT, ASK).status == 200


def test_only_allow_listed_headers_reach_the_provider(fronted, upstream):
    """Nothing of the caller's headers travels on, and the credential only in its own header."""
    upstream.will(Answer.json(GOOD))
    private = {
        "Authorization": "Bearer caller-secret",
        "Cookie": "a=b",
        "X-User-Id": "someone",
        "client_id": "app",
        "X-Forwarded-For": "10.0.0.1",
        "OpenAI-Organization": "org-caller",
    }
    call(fronted.url, CHAT, ASK, private)

    assert set(upstream.only.headers) == {
        "host",
        "authorization",
        "content-type",
        "content-length",
        "accept",
        "accept-encoding",
        "user-agent",
        "x-llm-gate-hop",
    }
    assert upstream.only.headers["authorization"] == "Bearer sk-fake-openai-0123456789"
    assert "sk-fake" not in upstream.only.path


def test_redirects_are_not_followed(fronted, upstream):
    """A redirect is a bad answer: the credential would travel to another place."""
    upstream.will(Answer(status=307, headers={"location": f"{upstream.url}/elsewhere"}), Answer.json(GOOD))
    answer = call(fronted.url, CHAT, ASK)

    assert answer.status == 502
    assert len(upstream.seen) == 1


def test_an_endless_answer_is_cut_off(fronted, upstream):
    """A complete answer is bounded in size, whatever its head said."""
    upstream.will(Answer.events(*[b"x" * 1_000_000] * 80))
    answer = call(fronted.url, CHAT, ASK)

    assert answer.status == 502


def test_nobody_there_is_503():
    """A provider that cannot be reached is a 503 that names it."""
    dead = {"OPENAI_API_KEY": KEY, "LLM_GATE_OPENAI_BASE_URL": "http://127.0.0.1:9/v1"}
    with running_gateway(dead) as running:
        answer = call(running.url, CHAT, ASK)

    assert answer.status == 503
    assert "openai" in answer.json["error"]["message"]


def test_base_urls_meant_for_clients_are_ignored(upstream):
    """OPENAI_BASE_URL, which points our own users at the gateway, does not redirect the gateway itself."""
    upstream.will(Answer.json(GOOD))
    environment = {
        "OPENAI_API_KEY": KEY,
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1",
    }
    with running_gateway(environment) as running:
        assert call(running.url, CHAT, ASK).status == 200


def test_retired_names_lead_to_their_replacement(fronted, upstream):
    """A retired name runs its replacement, and the answer says so."""
    upstream.will(Answer.json({**GOOD, "model": "gpt-6-luna"}))
    answer = call(fronted.url, CHAT, {**ASK, "model": "openai/gpt-4"})

    assert upstream.only.json["model"] == "gpt-6-luna"
    assert answer.headers["x-llm-gate-model"] == "gpt-6-luna"
    assert answer.json["model"] == "gpt-6-luna"


def test_unlisted_models_pass_through_without_a_cost(fronted, upstream):
    """A model the catalog does not list goes to its provider as named, at a cost that nobody knows."""
    usage = {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
    upstream.will(Answer.json({**GOOD, "usage": usage}))
    answer = call(fronted.url, CHAT, {**ASK, "model": "openai/brand-new"})

    assert upstream.only.json["model"] == "brand-new"
    assert answer.json["usage"]["cost"] is None
    assert "x-llm-gate-cost-usd" not in answer.headers


def test_a_ca_file_that_cannot_be_read_is_a_fault(tmp_path):
    """A ca_file is read before anything starts, not at the first call."""
    (tmp_path / "llm-gate.toml").write_text('[providers.openai]\nca_file = "nowhere.pem"\n', encoding="utf-8")
    done = run_command(
        "check", "--no-env-file", folder=tmp_path, environment=clean_environment({"OPENAI_API_KEY": KEY})
    )

    assert done.returncode == 2
    assert "llm-gate.toml:2" in done.stdout
    assert "providers.openai.ca_file" in done.stdout
