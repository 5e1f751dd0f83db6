"""What a training may cost is held before it begins, at a bound that holds where a plan wants that."""

import openai
import pytest

from support.gateway import running_gateway
from support.office import Desk, command
from support.tuning_fake import BASE, KEY, TuningFake

LINES = b'{"messages":[{"role":"user","content":"question"}]}\n' * 20
ASKED = {"role": "user", "content": "who?"}


@pytest.fixture(scope="module")
def vendor():
    """Run a vendor that trains models."""
    with TuningFake() as running:
        yield running


@pytest.fixture(scope="module")
def desk(vendor):
    """Run a gateway before the vendor, at the operator's desk."""
    environment = {"OPENAI_API_KEY": KEY, "LLM_GATE_OPENAI_BASE_URL": f"{vendor.url}/v1"}
    with running_gateway(environment) as gateway:
        made = Desk(gateway)
        made.gateway = gateway
        yield made


@pytest.fixture
def client_with(desk):
    """Return what makes a client whose plan has some limits."""
    clients = []

    def make(tenant, *limits):
        done = command(desk.gateway, "plans", "set", f"plan-{tenant}", *(f"--set={each}" for each in limits))
        assert done.returncode == 0, done.stderr
        key = desk.key_for(tenant)
        desk.do(f"/subscriptions/shop?tenant={tenant}", {"plan": f"plan-{tenant}"})
        clients.append(openai.OpenAI(base_url=f"{desk.url}/v1", api_key=key, max_retries=0))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def begun(client, model=f"openai/{BASE}", **fields):
    """Hand a file and a job in."""
    file = client.files.create(file=("training.jsonl", LINES), purpose="fine-tune")
    return client.fine_tuning.jobs.create(model=model, training_file=file.id, **fields)


def test_a_strict_plan_holds_the_bound(client_with, vendor):
    """Under a strict plan every byte may be a token, gone through as often as vendors ever choose."""
    # 1,040 bytes, 25 times, at three dollars for a million: 0.078 dollars.
    narrow = client_with("narrow", "monthly_cost_usd=0.077", "mode=strict")
    with pytest.raises(openai.RateLimitError):
        begun(narrow)
    assert vendor.jobs == {}
    wide = client_with("wide", "monthly_cost_usd=0.079", "mode=strict")
    assert begun(wide).status == "validating_files"
    with pytest.raises(openai.BadRequestError) as refused:
        begun(wide, method={"type": "reinforcement", "reinforcement": {"grader": {}}})
    assert refused.value.code == "not_bounded"


def test_what_has_no_price_is_refused_where_money_is_limited(client_with, vendor):
    """A training, or a tuned model, whose price nobody knows is no way around a limit of money."""
    client = client_with("unpriced", "monthly_cost_usd=5")
    before = len(vendor.jobs)
    with pytest.raises(openai.PermissionDeniedError) as refused:
        begun(client, "openai/gpt-of-tomorrow")
    assert refused.value.code == "price_unknown"
    assert len(vendor.jobs) == before
