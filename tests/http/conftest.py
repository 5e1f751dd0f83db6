"""One gateway on its defaults, and one in front of a scripted provider."""

import pytest

from support.gateway import running_gateway
from support.upstream import fake_upstream


@pytest.fixture(scope="session")
def gateway():
    """Run a gateway as a first-time user has it: no keys, the sandbox only."""
    with running_gateway(installed=True) as running:
        yield running


@pytest.fixture(scope="session")
def upstream():
    """Run a scripted provider."""
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="session")
def fronted(upstream):
    """Run a gateway whose providers all live at the scripted one."""
    environment = {
        "OPENAI_API_KEY": "sk-fake-openai-0123456789",
        "LLM_GATE_OPENAI_BASE_URL": f"{upstream.url}/v1",
        "ANTHROPIC_API_KEY": "sk-ant-fake-0123456789",
        "LLM_GATE_ANTHROPIC_BASE_URL": upstream.url,
        "GEMINI_API_KEY": "AQ.fake-gemini-0123456789",
        "LLM_GATE_GEMINI_BASE_URL": f"{upstream.url}/v1beta",
        "SECOND_API_KEY": "second-fake-0123456789",
    }
    toml = f"""
        [timeouts]
        idle_s = 1.5
        heartbeat_s = 0.4
        total_s = 3.0

        [providers.second]
        dialect = "openai"
        base_url = "{upstream.url}/second/v1"
        auth = {{ kind = "bearer", env = "SECOND_API_KEY" }}
        [[providers.second.models]]
        name = "m"
        operations = ["chat"]
        prices = [
            {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
            {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
        ]

        [aliases.best]
        targets = ["openai/gpt-4o-mini", "second/m"]
    """
    with running_gateway(environment, toml=toml) as running:
        yield running
