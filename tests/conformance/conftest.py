"""One fake vendor, and one gateway whose every vendor is that one, for all conformance tests."""

from collections.abc import Iterator

import openai
import pytest

from support.gateway import RunningGateway, running_gateway
from support.replay import CALLER_TOKEN, Caller, assert_no_credential, environment
from support.upstream import FakeUpstream, fake_upstream


@pytest.fixture(scope="session")
def upstream() -> Iterator[FakeUpstream]:
    with fake_upstream() as running:
        yield running


@pytest.fixture(scope="session")
def gateway(upstream) -> Iterator[RunningGateway]:
    with running_gateway(environment(upstream)) as running:
        yield running
    assert_no_credential("".join(running.log))


@pytest.fixture(scope="session")
def caller(gateway) -> Iterator[Caller]:
    caller = Caller(gateway.url)
    yield caller
    caller.close()


@pytest.fixture(scope="session")
def client(gateway) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=CALLER_TOKEN, max_retries=0) as client:
        yield client
