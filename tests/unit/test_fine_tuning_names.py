"""Whose a tuned model is: found under its name by its tenant, and by nobody else, whatever other names lead to."""

from datetime import date
from pathlib import Path

import pytest

from llm_gate.bootstrap.reach import directory_with, load_directory
from llm_gate.domain.access import DEFAULT_TENANT
from llm_gate.domain.errors import InvalidRequest, NotFound
from llm_gate.domain.fine_tuning import TunedModel
from llm_gate.domain.secret import Secret
from llm_gate.engine.working import TenantDirectories
from llm_gate.settings import load_settings

ON = date(2026, 11, 21)
BASE = "gpt-4o-mini-2024-07-18"
OWN, OUTSIDE, LISTED = f"ft:{BASE}:acme::one", "ft:gpt-4o:acme::outside", "ft:gpt-4o:acme::listed"
TEXT = f"""
[[providers.openai.models]]
name = "{LISTED}"

[aliases.outside]
targets = ["openai/{OUTSIDE}"]
"""
ENVIRONMENT = {
    "OPENAI_API_KEY": "sk-fake-0123456789",
    "TOGETHER_API_KEY": "tg-fake-0123456789",
    "LLM_PRIMARY_PROVIDER": "openai",
}


@pytest.fixture
def directories(tmp_path, monkeypatch):
    """Return what gives each tenant's directory: blue has tuned models, red an account of its own."""
    monkeypatch.chdir(tmp_path)
    Path("llm-gate.toml").write_text(TEXT, encoding="utf-8")
    settings = load_settings(ENVIRONMENT)
    usual = load_directory(settings)
    tenants = TenantDirectories(lambda credentials: directory_with(credentials, usual, settings))
    tenants.use({"red": {"openai": Secret("sk-red-0123456789")}})
    places = {name: usual.deployments[name][0].key for name in ("openai", "together")}

    def tuned(provider, name, base):
        return TunedModel(
            tenant="blue",
            provider=provider,
            name=name,
            base=base,
            job="j",
            deployment=places[provider],
            made_ms=1,
        )

    own = (tuned("openai", OWN, BASE), tuned("together", "acme/llama-mine", "llama"))
    tenants.use_tuned({"blue": own})
    return lambda tenant: tenants.of(tenant, usual)


def found(directory, name, operation="chat"):
    """Return the target that a name leads to."""
    return directory.resolve(name, operation, ON, {})[0]


def test_its_tenant_finds_it_under_each_name(directories):
    """A tuned model is a model of its provider, with what its base can do and the price of tuned ones."""
    blue = directories("blue")
    for name in (OWN, f"openai/{OWN}"):
        target = found(blue, name)
        assert (target.provider, target.wire_model) == ("openai", OWN)
    model = found(blue, OWN).model
    assert [(price.unit, price.nanos) for price in model.prices] == [
        ("input_tokens", 300_000_000),
        ("output_tokens", 1_200_000_000),
    ]
    assert model.context_window == 128_000
    assert found(blue, "acme/llama-mine").model.prices == ()
    listed = [model.name for offer in blue.offers() for model in offer.models]
    assert {OWN, "acme/llama-mine"} <= set(listed)
    with pytest.raises(InvalidRequest):
        found(blue, OWN, "fine_tune")


@pytest.mark.parametrize("tenant", ["green", "red", DEFAULT_TENANT])
def test_nobody_else_finds_it(directories, tenant):
    """Neither other tenants, nor those with an account of their own, nor the operator's own reach it."""
    other = directories(tenant)
    for name in (OWN, f"openai/{OWN}", "together/acme/llama-mine", "acme/llama-mine"):
        with pytest.raises(NotFound) as refused:
            found(other, name)
        assert refused.value.code == "model_not_found"
    assert OWN not in [model.name for offer in other.offers() for model in offer.models]


@pytest.mark.parametrize(
    ("tenant", "passes"), [("green", False), ("blue", False), ("red", True), (DEFAULT_TENANT, True)]
)
def test_models_that_nobody_has_here_are_their_accounts(directories, tenant, passes):
    """A tuned model made elsewhere is open to whoever the account belongs to, and to no other tenant."""
    directory = directories(tenant)
    for name in (f"openai/{OUTSIDE}", "outside"):
        if passes:
            assert found(directory, name).wire_model == OUTSIDE
        else:
            with pytest.raises(NotFound):
                found(directory, name)


@pytest.mark.parametrize("tenant", ["green", "blue", "red", DEFAULT_TENANT])
def test_what_the_operator_lists_is_everybodys(directories, tenant):
    """A tuned model that stands among the provider's models is one of them; unknown names pass as ever."""
    directory = directories(tenant)
    assert found(directory, f"openai/{LISTED}").wire_model == LISTED
    assert found(directory, "openai/gpt-of-tomorrow").wire_model == "gpt-of-tomorrow"


def test_tenants_without_anything_share_a_directory(directories):
    """Ten thousand tenants cost no more than one."""
    assert directories("green") is directories("grey")
    assert directories("blue") is not directories("green")
