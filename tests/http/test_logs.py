"""What the log says is what the operator asked for."""

import json

from support.gateway import running_gateway
from support.web import call

CHAT = "/v1/chat/completions"
ASK = {"model": "sandbox/chat", "messages": [{"role": "user", "content": "some private words"}]}


def test_levels_are_set_for_one_provider():
    """One provider's logger can be made talkative while everything else stays quiet."""
    toml = """
        [logging]
        level = "ERROR"
        [logging.providers]
        sandbox = "DEBUG"
    """
    with running_gateway(toml=toml) as quiet:
        call(quiet.url, CHAT, ASK)
        line = json.loads(quiet.logged("attempt answered"))

        assert line["logger"] == "llm_gate.provider.sandbox"
        assert line["level"] == "debug"
        assert not any("llm_gate.access" in each for each in quiet.log)


def test_prompts_are_logged_only_when_switched_on():
    """With logging.prompts the request's line holds its body."""
    with running_gateway(toml="[logging]\nprompts = true\n") as talkative:
        call(talkative.url, CHAT, ASK)

        assert "some private words" in json.loads(talkative.logged("private"))["prompt"]


def test_a_failed_attempt_leaves_a_warning():
    """A provider's failure is told by its own logger, with the upstream's status."""
    with running_gateway() as running:
        call(running.url, CHAT, ASK, {"x-llm-gate-sandbox": "fail=503"})
        line = json.loads(running.logged("attempt failed"))

        assert line["logger"] == "llm_gate.provider.sandbox"
        assert line["level"] == "warning"
        assert line["upstream_status"] == 503


def test_two_workers_share_one_port():
    """With several workers all calls are answered, and stopping ends them all."""
    with running_gateway(arguments=("--workers", "2")) as double:
        for _ in range(20):
            assert call(double.url, CHAT, ASK).status == 200


def test_request_ids_are_unique():
    """Every request without an id of the caller's gets one of its own, in every process."""
    with running_gateway(arguments=("--workers", "2")) as double:
        ids = {call(double.url, "/healthz").headers["x-request-id"] for _ in range(50)}

        assert len(ids) == 50
