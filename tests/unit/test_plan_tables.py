import asyncio
from contextlib import closing

import msgspec
import pytest

from llm_gate.catalog.loader import load_catalog
from llm_gate.configuration import Source
from llm_gate.domain.administration import Act
from llm_gate.domain.errors import Conflict, InvalidRequest
from llm_gate.domain.plan_tables import PlanTable, check_limit, patched, plan_from, read_patch, table_faults
from llm_gate.domain.plans import Limits, Plan
from llm_gate.settings import SettingsFaults, load_settings
from llm_gate.storage.directives import StoredDirectives
from llm_gate.storage.opening import open_store
from llm_gate.storage.plans import apply_plans, seed_plans, shipped_plans
from support.stores import sqlite_database

PROVIDERS = ("openai", "gemini")
USD = 10**9

# Semantics, section 2, June: free, basic, pro. None is unlimited; enterprise has its cost cap alone.
DOCUMENTED = {
    "text_calls": (50, 500, 3000),
    "gemini_calls": (50, 1000, 5000),
    "openai_calls": (0, 500, 2500),
    "anthropic_calls": (0, 200, 1000),
    "huggingface_calls": (0, 500, 2500),
    "tavily_calls": (10, 200, 1000),
    "serper_calls": (10, 200, 1000),
    "metaphor_calls": (0, 100, 500),
    "firecrawl_calls": (0, 100, 500),
    "exa_calls": (10, 100, 500),
    "image_calls": (10, 25, 100),
    "image_edit_calls": (5, 25, 100),
    "video_calls": (2, 10, 30),
    "audio_calls": (10, 100, 100),
    "wavespeed_calls": (None, 200, 500),
    "gemini_tokens": (50_000, 100_000, 5_000_000),
    "openai_tokens": (0, 100_000, 2_500_000),
    "anthropic_tokens": (0, 100_000, 1_000_000),
    "huggingface_tokens": (0, 100_000, 2_500_000),
    "monthly_cost_usd": (2 * USD, 25 * USD, 100 * USD),
}


def shipped(name):
    return plan_from(name, shipped_plans()[name], None, origin="shipped", at_ms=1)


@pytest.mark.parametrize("name", ["free", "basic", "pro"])
def test_shipped_plans_are_those_of_the_documents(name):
    """Every documented limit has its documented value; ours beside them are no smaller than in the plan below."""
    index = ["free", "basic", "pro"].index(name)
    limits = shipped(name).limits.values

    assert {limit: limits.get(limit) for limit in DOCUMENTED} == {
        limit: values[index] for limit, values in DOCUMENTED.items()
    }
    own = set(limits) - set(DOCUMENTED)
    assert own == {
        "transcription_calls",
        "embedding_calls",
        "search_calls",
        "fine_tune_calls",
        "parallel_jobs",
    }
    if index:
        below = shipped(["free", "basic"][index - 1]).limits.values
        assert all(limits[limit] >= below[limit] for limit in own)


def test_the_largest_plans_have_their_few_limits():
    """Enterprise is unlimited but for 500 dollars a month, the gateway's own plan entirely; prices are documented."""
    assert shipped("enterprise").limits.values == {"monthly_cost_usd": 500 * USD}
    assert shipped("unlimited").limits.values == {}
    prices = {
        name: (shipped(name).price_monthly_nanos // USD, shipped(name).price_yearly_nanos // USD)
        for name in shipped_plans()
    }
    assert prices == {
        "free": (0, 0),
        "basic": (29, 290),
        "pro": (79, 790),
        "enterprise": (199, 1990),
        "unlimited": (0, 0),
    }


def test_shipped_plans_name_providers_that_exist():
    """No limit of a shipped plan is about a provider that the catalog does not have."""
    providers = load_catalog().providers
    for name in shipped_plans():
        for limit in shipped(name).limits.values:
            check_limit(limit, providers)
    assert table_faults("unlimited", shipped_plans()["unlimited"])


def test_a_change_keeps_what_it_does_not_name():
    """Limits and properties that are not named stay; a plan that did not exist has no limits but those named."""
    first = patched(
        None, "team", read_patch([("monthly_cost_usd", "0.05"), ("mode", "strict")], PROVIDERS), 10
    )
    second = patched(first, "team", read_patch([("text_calls", " 5 "), ("label", "The team")], PROVIDERS), 20)

    assert first.limits == Limits(values={"monthly_cost_usd": 50_000_000}, since_ms={"monthly_cost_usd": 10})
    assert (first.label, first.mode, first.tier, first.origin) == ("Team", "strict", "custom", "operator")
    assert second.limits.values == {"monthly_cost_usd": 50_000_000, "text_calls": 5}
    assert second.limits.since_ms == {"monthly_cost_usd": 10, "text_calls": 20}
    assert (second.mode, second.label, second.created_at_ms, second.updated_at_ms) == (
        "strict",
        "The team",
        10,
        20,
    )
    assert patched(second, "team", read_patch([("text_calls", "5")], PROVIDERS), 30) is second


def test_a_limit_that_was_lifted_begins_anew():
    """A limit counts from when it came to be after there was none; changing its value does not restart it."""
    plan = patched(None, "p", read_patch([("text_calls", "5")], PROVIDERS), 1)
    plan = patched(plan, "p", read_patch([("text_calls", "9")], PROVIDERS), 2)
    assert plan.limits.since_ms == {"text_calls": 1}
    plan = patched(plan, "p", read_patch([("text_calls", "unlimited")], PROVIDERS), 3)
    assert plan.limits.values == {"text_calls": None}
    plan = patched(plan, "p", read_patch([("text_calls", "0")], PROVIDERS), 4)
    assert (plan.limits.values, plan.limits.since_ms) == ({"text_calls": 0}, {"text_calls": 4})


@pytest.mark.parametrize(
    "change",
    [
        ("mode", "strict", "mode", "strict"),
        ("max_output_tokens", "100", "max_output_tokens", 100),
        ("max_output_tokens", "unlimited", "max_output_tokens", None),
        ("allowed_models", "openai/*, gpt-4o,", "allowed_models", ("openai/*", "gpt-4o")),
        ("allowed_models", "", "allowed_models", ()),
        ("price_monthly_usd", "9.5", "price_monthly_nanos", 9_500_000_000),
        ("price_yearly_usd", "0", "price_yearly_nanos", 0),
        ("tier", "pro", "tier", "pro"),
        ("features", "a,b", "features", ("a", "b")),
        ("is_active", "false", "is_active", False),
        ("description", "", "description", ""),
    ],
)
def test_properties_are_read(change):
    """Each property that a command may name is read as people write it."""
    name, text, field, value = change
    patch = read_patch([(name, text)], PROVIDERS)

    assert patch.fields == {field: value}
    assert getattr(patched(None, "p", patch, 1), field) == value


@pytest.mark.parametrize(
    "change",
    [
        ("mode", "lax"),
        ("max_output_tokens", "0"),
        ("max_output_tokens", "-1"),
        ("max_output_tokens", "٣"),
        ("price_monthly_usd", "-1"),
        ("price_monthly_usd", "1e3"),
        ("price_monthly_usd", "0.0000000001"),
        ("is_active", "1"),
        ("label", ""),
        ("text_calls", "1.5"),
        ("text_calls", "-1"),
        ("text_calls", str(2**61 + 1)),
        ("monthly_cost_usd", "nan"),
        ("monthly_cost_usd", "0.0000000001"),
    ],
)
def test_values_that_make_no_sense_are_refused(change):
    """The message begins with the name of what is wrong."""
    with pytest.raises(InvalidRequest, match=f"^{change[0]}: "):
        read_patch([change], PROVIDERS)


@pytest.mark.parametrize(
    "name", ["text_cals", "opanai_calls", "opanai_tokens", "requests_per_year", "colour", ""]
)
def test_unknown_names_are_refused_with_a_list(name):
    """A slip of the keyboard never makes a limit that nothing counts."""
    with pytest.raises(InvalidRequest) as caught:
        read_patch([(name, "1")], PROVIDERS)

    for known in (
        "text_calls",
        "PROVIDER_tokens",
        "gemini, openai",
        "monthly_cost_usd",
        "requests_per_hour",
        "mode",
    ):
        assert known in caught.value.message


def test_some_plans_are_not_changed_by_commands():
    """The unlimited plan stays what its name says, the file's plans what the file says; names are plain."""
    patch = read_patch([("text_calls", "1")], PROVIDERS)

    with pytest.raises(Conflict, match="stays without limits"):
        patched(None, "unlimited", patch, 1)
    with pytest.raises(Conflict, match=r"llm-gate\.toml"):
        patched(Plan(name="p", label="P", origin="file"), "p", patch, 1)
    for name in ("", "A", "a b", "-a", "a" * 65, "é"):
        with pytest.raises(InvalidRequest):
            patched(None, name, patch, 1)


FILE = """
[plans]
default = "Team"

[plans.custom.team]
label = "The team"
price_monthly_usd = "9.50"
mode = "strict"
max_output_tokens = 500
allowed_models = ["openai/*"]
limits = { text_calls = 5, monthly_cost_usd = "0.05", openai_tokens = "unlimited", parallel_jobs = 2 }
"""


def test_the_file_s_plans_are_read(tmp_path):
    """Settings hold the default's name in lower case and the plans by name."""
    file = tmp_path / "llm-gate.toml"
    file.write_text(FILE, encoding="utf-8")
    plans = load_settings({}, config_file=file).plans

    assert plans.default == "team"
    plan = plan_from("team", plans.custom["team"], None, origin="file", at_ms=3)
    assert plan.limits.values == {
        "text_calls": 5,
        "monthly_cost_usd": 50_000_000,
        "openai_tokens": None,
        "parallel_jobs": 2,
    }
    assert (plan.label, plan.mode, plan.price_monthly_nanos) == ("The team", "strict", 9_500_000_000)
    assert (
        load_settings({}, config_file=tmp_path / "none.toml" if False else None).plans.default == "unlimited"
    )


def test_every_fault_of_the_file_s_plans_is_placed(tmp_path):
    """Faults of types, values, names and providers are told in one run, with line and key."""
    file = tmp_path / "llm-gate.toml"
    file.write_text(
        "[plans.custom.one]\n"
        'mode = "lax"\n'
        'limits = { text_calls = "x", money = 1 }\n'
        "[plans.custom.two]\n"
        "limits = { opanai_calls = 1, monthly_cost_usd = 0.05 }\n"
        "[plans.custom.three]\n"
        "limits = { opanai_calls = 1 }\n"
        "[plans.custom.unlimited]\n"
        "[plans.custom.Four]\n"
        'price_yearly_usd = "much"\n',
        encoding="utf-8",
    )
    with pytest.raises(SettingsFaults) as caught:
        Source(config_file=file).read()

    assert [(place.line, place.key) for place in caught.value.places] == [
        (2, "plans.custom.one.mode"),
        (3, "plans.custom.one.limits.text_calls"),
        (3, "plans.custom.one.limits.money"),
        (5, "plans.custom.two.limits.monthly_cost_usd"),
        (7, "plans.custom.three.limits.opanai_calls"),
        (8, "plans.custom.unlimited"),
        (9, "plans.custom.Four"),
        (10, "plans.custom.Four.price_yearly_usd"),
    ]


@pytest.mark.parametrize(
    ("faulty", "variables"),
    [
        ("LLM_GATE_DATABASE_URL", {"LLM_GATE_DATABASE_URL": "mysql://x", "LLM_GATE_PEPPER": "p" * 32}),
        ("LLM_GATE_DATABASE_URL", {"LLM_GATE_DATABASE_URL": "postgresql://x/y"}),
        (
            "LLM_GATE_DATABASE_URL",
            {"LLM_GATE_DATABASE_URL": "postgresql://x:p/y", "LLM_GATE_PEPPER": "p" * 32},
        ),
        ("LLM_GATE_DATABASE_URL", {"LLM_GATE_DATABASE_URL": "postgresql://[x", "LLM_GATE_PEPPER": "p" * 32}),
        ("LLM_GATE_DATABASE_URL", {"LLM_GATE_DATABASE_URL": "postgresql://u@h", "LLM_GATE_PEPPER": "p" * 32}),
        (
            "LLM_GATE_DATABASE_URL",
            {"LLM_GATE_DATABASE_URL": "postgresql://u@x/", "LLM_GATE_PEPPER": "p" * 32},
        ),
        ("LLM_GATE_REDIS_URL", {"LLM_GATE_REDIS_URL": "http://x"}),
        ("LLM_GATE_PEPPER", {"LLM_GATE_PEPPER": "p" * 31}),
    ],
)
def test_the_variables_of_the_stores_are_checked(faulty, variables, tmp_path, monkeypatch):
    """Addresses have their scheme, PostgreSQL comes with a pepper, and no fault quotes a value."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsFaults) as caught:
        load_settings(variables)

    assert [place.key for place in caught.value.places] == [faulty]
    assert not any(value in str(caught.value) for value in variables.values())


def test_the_variables_of_the_stores_stay_secret(tmp_path, monkeypatch):
    """What they hold can be used and is never shown."""
    monkeypatch.chdir(tmp_path)
    variables = {
        "LLM_GATE_DATABASE_URL": "postgres://u:hidden@x/y",
        "LLM_GATE_REDIS_URL": "rediss://:hidden@x",
        "LLM_GATE_PEPPER": "hidden" * 6,
    }
    settings = load_settings(variables)

    assert "hidden" not in repr(settings)
    found = [settings.database_url, settings.redis_url, settings.pepper]
    assert [secret.reveal() for secret in found] == list(variables.values())
    assert load_settings({}).plans.default == "unlimited"


def test_the_file_wins_over_edits_and_lets_go(tmp_path):
    """Its plans are marked as such, follow it, keep when a limit began, and are the operator's once it is silent."""
    table = PlanTable(limits={"text_calls": 5, "image_calls": 1})
    with sqlite_database(tmp_path) as database:
        directives = StoredDirectives(database)
        seed_plans(database, 1)
        apply_plans(database, {"team": table, "free": PlanTable(label="Ours")}, 10)
        first = asyncio.run(directives.plan("team"))
        revision = asyncio.run(directives.revision())
        apply_plans(database, {"team": table, "free": PlanTable(label="Ours")}, 11)
        assert asyncio.run(directives.revision()) == revision
        changed = msgspec.structs.replace(table, limits={"text_calls": 6, "video_calls": 1})
        apply_plans(database, {"team": changed}, 12, releasing=False)
        second = asyncio.run(directives.plan("team"))
        assert asyncio.run(directives.plan("free")).origin == "file"
        apply_plans(database, {}, 13)
        third = asyncio.run(directives.plan("team"))

    assert (first.origin, first.limits.values) == ("file", {"text_calls": 5, "image_calls": 1})
    assert second.limits.values == {"text_calls": 6, "video_calls": 1}
    assert second.limits.since_ms == {"text_calls": 10, "video_calls": 12}
    assert (third.origin, third.limits) == ("operator", second.limits)
    assert patched(third, "team", read_patch([("mode", "strict")], PROVIDERS), 14).mode == "strict"


def test_an_edited_shipped_plan_is_the_operator_s(tmp_path):
    """Seeding again, as a later version does, leaves it alone, and brings back none but those that are missing."""
    patch = read_patch([("text_calls", "7")], PROVIDERS)
    act = Act(actor="cli", action="plan.set", at_ms=5)
    with closing(open_store(data_dir=tmp_path, database_url=None, pepper=None, at_ms=1)) as store:
        administration = store.administration
        change = administration.change_plan("free", lambda before: patched(before, "free", patch, 5), act)
        edited = asyncio.run(change)
        seed_plans(store.database, 9)

        assert asyncio.run(store.directives.plan("free")) == edited
        assert (edited.origin, edited.limits.values["text_calls"]) == ("operator", 7)
        assert asyncio.run(store.directives.plan("pro")).updated_at_ms == 1
