"""A strict plan's bound holds for every attempt of a call, also for one that asks again with more than before."""

import asyncio

import pytest
from msgspec import structs

from llm_gate.bootstrap import build, open_stores
from llm_gate.client.errors import QuotaExceeded
from llm_gate.client.text import TextCall, generate
from llm_gate.configuration import Source
from llm_gate.domain.ledger import Advance, Reserve, Settle
from support.upstream import Answer, fake_upstream

TOML = """
    [plans]
    default = "strict"
    [plans.custom.strict]
    mode = "strict"
    [plans.custom.strict.limits]
    second_tokens = {tokens}

    [providers.second]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "none" }}
    [[providers.second.models]]
    name = "m"
"""
MISFIT = '{"city": "' + "x" * 4_000 + '"'


def says(text, read, written):
    choice = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
    return Answer.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})


class Noting:
    """The real ledger, which keeps the steps that were handed in."""

    def __init__(self, ledger):
        self.steps = []
        self._ledger = ledger

    def submit(self, step):
        self.steps.append(step)
        return self._ledger.submit(step)

    def __getattr__(self, name):
        return getattr(self._ledger, name)


@pytest.fixture
def ask(tmp_path):
    """Ask for an object in a gateway with a strict plan; return what came of it, and the steps."""

    def run(tokens, *answers):
        async def work(settings):
            stores = open_stores(settings)
            ledger = Noting(stores.ledger)
            gateway = build(settings, stores=structs.replace(stores, ledger=ledger))
            await gateway.start()
            try:
                wanted = TextCall(
                    prompt="Which city?",
                    json_struct={"city": "string"},
                    user_id="u",
                    model="second/m",
                    max_tokens=2_000,
                )
                try:
                    return await generate(gateway, wanted), ledger.steps
                except QuotaExceeded as error:
                    return error, ledger.steps
            finally:
                await gateway.close()

        with fake_upstream() as upstream:
            upstream.will(*answers)
            file = tmp_path / "llm-gate.toml"
            file.write_text(TOML.format(url=upstream.url, tokens=tokens))
            source = Source(config_file=file, overrides={"data_dir": tmp_path / "data"})
            found, steps = asyncio.run(work(source.read()))
            return found, steps, len(upstream.seen)

    return run


def test_what_is_asked_again_is_bounded_as_it_is(ask):
    """The answer that did not fit goes out again with the question, and is reserved for with it."""
    found, steps, asked = ask(50_000, says(MISFIT, 20, 1_500), says('{"city": "Oslo"}', 4_100, 10))
    reserve, advance, settle = steps

    assert (found, asked) == ({"city": "Oslo"}, 2)
    assert [type(step) for step in steps] == [Reserve, Advance, Settle]
    assert advance.intent.bound_tokens >= reserve.intent.bound_tokens + len(MISFIT)
    assert advance.outcome.tokens == 1_520
    assert settle.outcome.tokens <= advance.intent.bound_tokens


def test_what_leaves_no_room_to_ask_again_is_refused(ask):
    """Where the longer question does not fit into what is left, it is not sent, and what was used is counted."""
    found, steps, asked = ask(5_000, says(MISFIT, 20, 1_500), says('{"city": "Oslo"}', 4_100, 10))

    assert isinstance(found, QuotaExceeded)
    assert asked == 1
    assert found.detail["usage_info"]["type"] == "second_tokens"
    assert [type(step) for step in steps] == [Reserve, Advance, Settle]
    assert steps[-1].status == "failed"
