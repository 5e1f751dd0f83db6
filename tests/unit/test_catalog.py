import subprocess
import sys
from datetime import date
from fractions import Fraction
from pathlib import Path

import pytest

from llm_gate.bootstrap import load_directory
from llm_gate.catalog.loader import CatalogFaults, load_catalog, load_provider
from llm_gate.domain.catalog import ProviderSpec
from llm_gate.domain.money import format_usd
from llm_gate.domain.pricing import cost_of
from llm_gate.domain.provider import Provider
from llm_gate.domain.usage import Usage
from llm_gate.settings import load_settings
from support.aliases import alias_of

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 11, 21)

# Providers that no dialect of this version reaches.
CATALOGUED = {"metaphor", "firecrawl"}

# The documents' catalogue: label, description, context window, training data, prices (unit, usd, w, h, quality).
DOCUMENTED = {
    "gpt-35-turbo": ("GPT-3.5 Turbo", "GPT-3.5 Turbo model", 16385, "Sep 2021", []),
    "gpt-4": (
        "GPT-4",
        "GPT-4 model",
        8192,
        "Sep 2021",
        [("input_tokens", "30"), ("output_tokens", "60")],
    ),
    "dall-e-2": (
        "DALL·E-2",
        "DALL·E-2 model for image generation",
        None,
        "Nov 2022",
        [
            ("images", "0.02", 1024, 1024, None),
            ("images", "0.018", 512, 512, None),
            ("images", "0.016", 256, 256, None),
        ],
    ),
    "dall-e-3": (
        "DALL·E-3",
        "DALL·E-3 model for advanced image generation",
        None,
        "Nov 2023",
        [
            ("images", "0.04", 1024, 1024, "Standard"),
            ("images", "0.08", 1792, 1024, "Standard"),
            ("images", "0.08", 1024, 1024, "HD"),
            ("images", "0.12", 1792, 1024, "HD"),
        ],
    ),
    "gpt-4o": (
        "GPT-4o",
        "GPT-4 multimodal",
        128000,
        "Oct 2023",
        [
            ("input_tokens", "5"),
            ("output_tokens", "15"),
            ("image_inputs", "0.003825", 1024, 1024, "Standard"),
        ],
    ),
    "gpt-4o-mini": (
        "GPT-4 Mini",
        "GPT-4 Smaller Variant",
        128000,
        "Oct 2023",
        [
            ("input_tokens", "0.15"),
            ("output_tokens", "0.6"),
            ("image_inputs", "0.003825", 1024, 1024, "Standard"),
        ],
    ),
    "text-embedding-ada-002": (
        "Text Embedding Ada 002",
        "Ada 002 for embedding",
        None,
        None,
        [("input_tokens", "0.1")],
    ),
}


@pytest.fixture(scope="module")
def catalog():
    return load_catalog()


def models_of(entry):
    return [entry.models[spec.name] for spec in entry.spec.models]


def every_model(catalog):
    return [model for entry in catalog.providers.values() for model in models_of(entry)]


def faults_of(overlay=None, aliases=None):
    with pytest.raises(CatalogFaults) as caught:
        load_catalog(overlay or {}, {name: alias_of(*targets) for name, targets in (aliases or {}).items()})
    return {fault.path: fault.message for fault in caught.value.faults}


def second(**model):
    """Return a provider of one's own with a single model."""
    return {
        "second": {
            "dialect": "openai",
            "base_url": "http://127.0.0.1:9000/v1",
            "models": [{"name": "m", **model}],
        }
    }


@pytest.mark.parametrize("provider", ["openai", "azure_openai"])
@pytest.mark.parametrize("name", DOCUMENTED)
def test_the_documents_models_carry_the_documents_values(catalog, provider, name):
    """Label, description, context window, training data and prices are the documents', to the digit."""
    label, description, window, trained, prices = DOCUMENTED[name]
    model = catalog.providers[provider].models[name]
    assert (model.label, model.description) == (label, description)
    assert (model.context_window, model.training_data) == (window, trained)
    found = []
    for price in model.prices:
        row = (price.unit, format_usd(int(price.nanos)))
        picture = price.condition
        found.append((*row, picture.width, picture.height, picture.quality) if picture else row)
        assert price.per == (1_000_000 if price.unit.endswith("tokens") else 1)
    assert found == prices


@pytest.mark.parametrize("provider", ["openai", "azure_openai"])
def test_the_documents_models_come_first_in_the_documents_order(catalog, provider):
    """A list of the models begins with the documents' seven."""
    assert [model.name for model in models_of(catalog.providers[provider])][:7] == list(DOCUMENTED)


def test_provider_aliases_are_data(catalog):
    """The documents' other names of providers lead to the canonical ones."""
    expected = {
        "claude": "anthropic",
        "google": "gemini",
        "palm": "gemini",
        "hf": "huggingface",
        "azure": "azure_openai",
    }
    assert expected.items() <= catalog.provider_aliases.items()


def test_automatic_choice_has_the_documented_order(catalog):
    """Without a named provider the ranks give the documented order, with the sandbox last."""
    ranked = {
        entry.spec.rank: name for name, entry in catalog.providers.items() if entry.spec.rank is not None
    }
    order = ["gemini", "huggingface", "openai", "anthropic", "azure_openai", "cohere", "ollama", "sandbox"]
    # Those without text are asked for media alone.
    ranked = {rank: name for rank, name in ranked.items() if "chat" in catalog.providers[name].spec.defaults}
    assert [ranked[rank] for rank in sorted(ranked)] == order


def test_every_provider_says_how_it_is_reached(catalog):
    """Every entry names a wire format, a default model that is still alive, and an address or its variable."""
    for entry in catalog.providers.values():
        spec = entry.spec
        for operation, name in spec.defaults.items():
            assert not entry.models[name].is_retired(TODAY), (entry.name, operation)
        if entry.name in CATALOGUED:
            continue
        assert spec.dialect in {"openai", "anthropic", "gemini", "cohere", "ollama", spec.module}
        assert spec.base_url or spec.base_url_env
        assert {"chat", "image", "search"} & spec.defaults.keys()


@pytest.mark.parametrize("provider", sorted(CATALOGUED))
def test_a_provider_without_a_dialect_is_priced_and_not_called(provider):
    """It stands in the catalog with its models, and is not enabled, whatever address or key is set."""
    environment = {
        f"{provider.upper()}_API_KEY": "k",
        f"LLM_GATE_{provider.upper()}_BASE_URL": "http://127.0.0.1:9",
    }
    directory = load_directory(load_settings(environment))
    assert directory.catalog.providers[provider].models
    assert not directory.is_enabled(provider)
    assert directory.hints[provider] == "it is listed for its prices; this version cannot call it"


def test_a_catalogued_provider_can_be_given_a_dialect():
    """The operator's file may complete the entry, whose models and prices stay, and may change only its prices."""
    dialect = {"dialect": "openai", "base_url": "http://127.0.0.1:9000/v1"}
    entry = load_catalog({"firecrawl": dialect}).providers["firecrawl"]
    assert entry.models == load_catalog().providers["firecrawl"].models
    prices = [{"unit": "requests", "usd": "1"}]
    changed = load_catalog({"tavily": {"models": [{"name": "tavily-search", "prices": prices}]}})
    (price,) = changed.providers["tavily"].models["tavily-search"].prices
    assert price.nanos == 10**9
    assert "providers.firecrawl.base_url" in faults_of({"firecrawl": {"dialect": "openai"}})


def test_the_sandbox_needs_nothing_and_costs_nothing(catalog):
    """Sandbox calls are priced at exactly 0, not at an unknown price."""
    sandbox = catalog.providers["sandbox"]
    assert sandbox.spec.auth.kind == "none"
    assert "synthetic" in sandbox.description
    usage = Usage(input_tokens=10, output_tokens=5)
    for name in ("chat", "embedding"):
        cost = cost_of(sandbox.models[name].prices, usage, TODAY)
        assert cost is not None
        assert cost.nanos == 0


def test_ids_are_the_same_on_every_start():
    """Providers, models and prices keep their ids, and no two things share one."""
    first, again = load_catalog(), load_catalog()
    assert first == again
    ids = [entry.id for entry in first.providers.values()]
    ids += [model.id for model in every_model(first)]
    ids += [price.id for model in every_model(first) for price in model.prices]
    assert len(ids) == len(set(ids))


def test_ids_do_not_depend_on_the_process(catalog):
    """The id of a known model is this one, for ever: usage records point to it."""
    model = catalog.providers["openai"].models["gpt-4o"]
    code = (
        "from llm_gate.catalog.loader import load_catalog;"
        "print(load_catalog().providers['openai'].models['gpt-4o'].id)"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert printed.stdout.strip() == model.id == "f8637ae8-1a9d-5da1-be01-f7aa1b188083"


def test_another_amount_is_another_price():
    """A changed price has its own id, so that a record of the old one stays true."""
    overlay = {"openai": {"models": [{"name": "gpt-4o", "prices": [{"unit": "input_tokens", "usd": "7"}]}]}}
    (changed,) = load_catalog(overlay).providers["openai"].models["gpt-4o"].prices
    assert changed.id not in {
        price.id for price in load_catalog().providers["openai"].models["gpt-4o"].prices
    }


def test_every_price_has_a_source_and_a_date(catalog):
    """No shipped price is without its origin and the day it was checked."""
    for model in every_model(catalog):
        for price in model.prices:
            assert price.source, model.name
            assert price.checked, model.name
            assert price.checked <= TODAY


def test_the_price_files_equal_the_price_data():
    """Generating the token prices anew would change nothing."""
    command = [sys.executable, str(ROOT / "scripts" / "update_prices.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("day", "tokens", "dollars"),
    [
        (date(2026, 3, 12), 200_000, "5"),
        (date(2026, 3, 12), 200_001, "10"),
        (date(2026, 3, 13), 200_001, "5"),
    ],
)
def test_a_dropped_threshold_ends_with_the_day(catalog, day, tokens, dollars):
    """A price above a threshold stops when the vendor drops it, and not a day earlier."""
    cost = cost_of(
        catalog.providers["anthropic"].models["claude-opus-4-6"].prices,
        Usage(input_tokens=tokens, output_tokens=0),
        day,
    )
    assert cost is not None
    assert cost.nanos == round(Fraction(dollars) * tokens * 1000)


def test_a_future_price_waits_for_its_day(catalog):
    """An announced price applies from its first day on."""
    prices = catalog.providers["gemini"].models["gemini-3.8-flash"].prices
    usage = Usage(input_tokens=1_000_000, output_tokens=0)
    costs = [cost_of(prices, usage, day) for day in (date(2026, 12, 31), date(2027, 1, 1))]
    assert [cost and cost.nanos for cost in costs] == [750_000_000, 1_500_000_000]


@pytest.mark.parametrize(
    ("provider", "name", "replacement"),
    [
        ("openai", "gpt-4", "gpt-6-luna"),
        ("openai", "gpt-3.5-turbo", "gpt-6-luna"),
        ("openai", "gpt-35-turbo", "gpt-6-luna"),
        ("openai", "dall-e-2", "gpt-image-2"),
        ("openai", "dall-e-3", "gpt-image-2"),
        ("gemini", "gemini-pro", "gemini-3.8-flash"),
        ("gemini", "gemini-1.5-flash", "gemini-3.8-flash"),
        ("gemini", "gemini-1.5-pro", "gemini-3.8-flash"),
        ("gemini", "gemini-2.0-flash", "gemini-3.8-flash"),
        ("gemini", "gemini-2.0-flash-001", "gemini-3.8-flash"),
        ("gemini", "gemini-2.0-flash-lite", "gemini-3.5-flash-lite"),
        ("anthropic", "claude-3-sonnet-20240229", "claude-sonnet-5-5"),
        ("anthropic", "claude-3.5-sonnet", "claude-sonnet-5-5"),
        ("anthropic", "claude-3-5-sonnet-20241022", "claude-sonnet-5-5"),
    ],
)
def test_retired_names_of_the_documents_have_a_living_replacement(catalog, provider, name, replacement):
    """A name that the vendor has switched off still resolves."""
    models = catalog.providers[provider].models
    assert models[name].is_retired(TODAY)
    assert models[name].replacement == replacement
    assert not models[replacement].is_retired(TODAY)


@pytest.mark.parametrize(
    ("provider", "name", "last_day"),
    [
        ("openai", "gpt-4o", date(2027, 1, 13)),
        ("openai", "gpt-4o-mini", date(2027, 1, 13)),
        ("openai", "gpt-5", date(2026, 12, 10)),
        ("anthropic", "claude-sonnet-4-5", date(2026, 11, 29)),
        ("gemini", "gemini-2.5-pro", date(2026, 11, 30)),
    ],
)
def test_announced_retirements_take_effect_on_their_day(catalog, provider, name, last_day):
    """A model runs through its last day and is replaced from the next one on."""
    model = catalog.providers[provider].models[name]
    assert not model.is_retired(last_day)
    assert model.is_retired(date.fromordinal(last_day.toordinal() + 1))


def test_deployments_of_the_customer_are_never_retired(catalog):
    """Where the customer deploys models himself, no calendar of ours switches one off."""
    assert all(model.retired_on is None for model in models_of(catalog.providers["azure_openai"]))


def test_an_overlay_changes_only_what_it_names(catalog):
    """Values replace, tables merge, and everything unnamed stays as shipped."""
    overlay = {
        "openai": {
            "base_url": "http://127.0.0.1:1/v1",
            "auth": {"env": "MY_KEY"},
            "defaults": {"chat": "gpt-4o"},
        }
    }
    entry = load_catalog(overlay).providers["openai"]
    shipped = catalog.providers["openai"]
    assert entry.spec.base_url == "http://127.0.0.1:1/v1"
    assert (entry.spec.auth.kind, entry.spec.auth.names) == ("bearer", ("MY_KEY",))
    assert entry.spec.defaults["chat"] == "gpt-4o"
    assert entry.spec.defaults["embedding"] == shipped.spec.defaults["embedding"]
    assert entry.models == shipped.models
    assert entry.id == shipped.id


def test_models_of_an_overlay_merge_by_name(catalog):
    """A named model keeps its facts, its price list is replaced as a whole, and new models join at the end."""
    overlay = {
        "openai": {
            "models": [
                {"name": "mine", "operations": ["chat"]},
                {"name": "gpt-4o", "prices": [{"unit": "input_tokens", "per": 1_000_000, "usd": "1"}]},
            ]
        }
    }
    entry = load_catalog(overlay).providers["openai"]
    assert [price.unit for price in entry.models["gpt-4o"].prices] == ["input_tokens"]
    assert entry.models["gpt-4o"].label == "GPT-4o"
    assert entry.models["gpt-4o"].id == catalog.providers["openai"].models["gpt-4o"].id
    assert models_of(entry)[-1].name == "mine"
    assert len(entry.spec.models) == len(catalog.providers["openai"].spec.models) + 1


def test_a_provider_of_ones_own_needs_only_its_address():
    """The contract's example loads; labels default to names, and no price is unknown, not free."""
    prices = [
        {"unit": "input_tokens", "per": 1_000_000, "usd": "0.15"},
        {"unit": "output_tokens", "per": 1_000_000, "usd": "0.60"},
    ]
    overlay = second(operations=["chat"], prices=prices)
    overlay["second"]["auth"] = {"kind": "bearer", "env": "SECOND_API_KEY"}
    overlay["second"]["models"].append({"name": "unpriced"})
    catalog = load_catalog(overlay, {"best": alias_of("openai/gpt-4o-mini", "second/m")})
    entry = catalog.providers["second"]
    assert (entry.label, entry.models["m"].label) == ("second", "m")
    usage = Usage(input_tokens=1_000_000, output_tokens=1_000_000)
    cost = cost_of(entry.models["m"].prices, usage, TODAY)
    assert cost is not None
    assert cost.nanos == 750_000_000
    assert cost_of(entry.models["unpriced"].prices, usage, TODAY) is None
    assert catalog.aliases == {"best": alias_of("openai/gpt-4o-mini", "second/m")}


@pytest.mark.parametrize(
    ("overlay", "path"),
    [
        ({"second": 1}, "providers.second"),
        ({"second": {"base_url": "http://x/v1"}}, "providers.second.dialect"),
        ({"second": {"dialect": "openai"}}, "providers.second.base_url"),
        ({"second": {"dialect": "openai", "base_url": "ftp://x"}}, "providers.second.base_url"),
        ({"second": {"dialect": "openai", "base_url": "http://["}}, "providers.second.base_url"),
        ({"second": {"colour": "red"}}, "providers.second.colour"),
        ({"Second": {"dialect": "openai", "base_url": "http://x"}}, "providers.Second"),
        ({"claude": {"dialect": "openai", "base_url": "http://x"}}, "providers.claude"),
        ({"openai": {"auth": {"kind": "header"}}}, "providers.openai.auth.header"),
        ({"openai": {"auth": {"env": []}}}, "providers.openai.auth.env"),
        ({"openai": {"aliases": ["gemini"]}}, "providers.openai.aliases[0]"),
        ({"openai": {"aliases": ["claude"]}}, "providers.openai.aliases[0]"),
        ({"openai": {"defaults": {"chat": "nope"}}}, "providers.openai.defaults.chat"),
        ({"openai": {"api": "completions"}}, "providers.openai.api"),
        ({"openai": {"reply_headers": {"a b": "x-llm-gate-a"}}}, "providers.openai.reply_headers"),
        ({"openai": {"reply_headers": {"a": "set-cookie"}}}, "providers.openai.reply_headers.a"),
        ({"openai": {"reply_headers": {"a": "X-LLM-Gate-Model"}}}, "providers.openai.reply_headers.a"),
        ({"openai": {"defaults": {"chat": "dall-e-3"}}}, "providers.openai.defaults.chat"),
        ({"openai": {"models": [{"label": "x"}]}}, "providers.openai.models[0].name"),
        ({"openai": {"models": [{"name": "x"}, {"name": "x"}]}}, "providers.openai.models[1].name"),
        ({"openai": {"models": [{"name": "gpt-3.5-turbo"}]}}, "providers.openai.models[0].name"),
        (
            {"openai": {"models": [{"name": "x", "aliases": ["gpt-4o"]}]}},
            "providers.openai.models[0].aliases[0]",
        ),
        (second(operations=["dance"]), "providers.second.models[0].operations[0]"),
        (second(operations=[]), "providers.second.models[0].operations"),
        (second(context_window=0), "providers.second.models[0].context_window"),
        (second(replacement="m"), "providers.second.models[0].replacement"),
        (second(retired_on=TODAY, replacement="gone"), "providers.second.models[0].replacement"),
        (second(retired_on="soon"), "providers.second.models[0].retired_on"),
    ],
)
def test_every_fault_of_an_entry_is_named(overlay, path):
    """What is wrong with the operator's entry is said with the place where he wrote it."""
    assert path in faults_of(overlay)


@pytest.mark.parametrize(
    ("price", "path"),
    [
        ({"unit": "input_tokens", "usd": 0.15}, "usd"),
        ({"unit": "input_tokens", "usd": "cheap"}, "usd"),
        ({"unit": "input_tokens", "usd": "-1"}, "usd"),
        ({"unit": "input_tokens", "usd": "NaN"}, "usd"),
        ({"unit": "tokens", "usd": "1"}, "unit"),
        ({"unit": "input_tokens"}, "usd"),
        ({"unit": "input_tokens", "usd": "1", "per": 0}, "per"),
        ({"unit": "input_tokens", "usd": "1", "condition": {}}, "condition"),
        ({"unit": "input_tokens", "usd": "1", "condition": {"width": 1, "height": 1}}, "condition"),
        ({"unit": "images", "usd": "1", "condition": {"width": 1}}, "condition"),
        ({"unit": "images", "usd": "1", "condition": {"width": 0, "height": 1}}, "condition.width"),
        ({"unit": "characters", "usd": "1", "condition": {"resolution": "2K"}}, "condition"),
        ({"unit": "characters", "usd": "1", "minimum_usd": "low"}, "minimum_usd"),
        ({"unit": "characters", "usd": "1", "minimum_usd": ""}, "minimum_usd"),
        ({"unit": "input_tokens", "usd": "1", "minimum_usd": "1"}, "minimum_usd"),
        ({"unit": "input_tokens", "usd": "1", "instead_of": "output_tokens"}, "instead_of"),
        ({"unit": "images", "usd": "1", "instead_of": "seconds"}, "instead_of"),
        (
            {"unit": "images", "usd": "1", "condition": {"above_input_tokens": 1}},
            "condition.above_input_tokens",
        ),
        (
            {"unit": "input_tokens", "usd": "1", "condition": {"above_input_tokens": -1}},
            "condition.above_input_tokens",
        ),
    ],
)
def test_every_fault_of_a_price_is_named(price, path):
    """A price that cannot be read exactly is refused at its own key, never guessed."""
    fine = {"unit": "output_tokens", "usd": "1"}
    assert f"providers.second.models[0].prices[1].{path}" in faults_of(second(prices=[fine, price]))


def test_two_prices_at_once_are_a_fault():
    """Two prices of one unit for the same day and condition leave open which one is meant."""
    price = {"unit": "input_tokens", "usd": "1"}
    assert "providers.second.models[0].prices[1]" in faults_of(second(prices=[price, price]))


def test_a_circle_of_replacements_is_a_fault():
    """Replacements that lead back to where they began are refused."""
    models = [
        {"name": "a", "retired_on": TODAY, "replacement": "b"},
        {"name": "b", "retired_on": TODAY, "replacement": "a"},
    ]
    overlay = second()
    overlay["second"]["models"] = models
    assert set(faults_of(overlay)) == {f"providers.second.models[{index}].replacement" for index in (0, 1)}


def test_a_replacement_must_do_the_same_work():
    """A chat model is not replaced by one that cannot chat."""
    overlay = {"openai": {"models": [{"name": "gpt-4", "replacement": "gpt-image-2"}]}}
    assert "chat" in faults_of(overlay)["providers.openai.models[0].replacement"]


@pytest.mark.parametrize(
    ("alias", "targets", "path"),
    [
        ("best", [], "aliases.best.targets"),
        ("best", ["nobody/m"], "aliases.best.targets[0]"),
        ("best", ["openai/gpt-4o", "openai/"], "aliases.best.targets[1]"),
        ("best", ["no-such-model"], "aliases.best.targets[0]"),
        ("best", ["best"], "aliases.best.targets[0]"),
        ("openai/best", ["openai/gpt-4o"], "aliases.openai/best"),
    ],
)
def test_every_fault_of_an_alias_is_named(alias, targets, path):
    """An alias that could never be answered is refused."""
    assert path in faults_of(aliases={alias: targets})


def test_an_alias_may_name_what_is_not_listed():
    """Targets may be unlisted models of a known provider, other names of one, and names that hold a slash."""
    targets = ["openai/brand-new", "claude/claude-sonnet-5-5", "gpt-6-luna", "openai/gpt-oss-120b:groq"]
    assert load_catalog({}, {"best": alias_of(*targets)}).aliases["best"] == alias_of(*targets)


def test_all_faults_come_at_once():
    """One run names the faults of every entry, whatever their kind."""
    overlay = second(prices=[{"unit": "input_tokens", "usd": "cheap"}], context_window=-1)
    overlay["third"] = {"colour": "red"}
    assert set(faults_of(overlay)) == {
        "providers.second.models[0].context_window",
        "providers.second.models[0].prices[0].usd",
        "providers.third.colour",
        "providers.third.dialect",
        "providers.third.base_url",
    }


def test_a_wrong_type_hides_nothing_else():
    """What can be read of a faulty entry is checked with it, prices under their own numbers, and aliases too."""
    overlay = second(
        context_window=-1,
        prices=[{"unit": "input_tokens", "usd": 1}, {"unit": "output_tokens", "usd": "cheap"}],
    )
    overlay["second"]["base_url"] = "ftp://127.0.0.1"
    overlay["second"]["label"] = 7

    assert faults_of(overlay, {"best": ["second/m", "m", "secnod/m", "typo"]}) == {
        "providers.second.label": "expected `str | null`, got `int`",
        "providers.second.models[0].prices[0].usd": "expected `str`, got `int`",
        "providers.second.base_url": "expected an address that starts with http:// or https://",
        "providers.second.models[0].context_window": "expected a number above 0",
        "providers.second.models[0].prices[1].usd": "'cheap' is not a plain, non-negative decimal amount",
        "aliases.best.targets[2]": "there is no provider 'secnod'",
        "aliases.best.targets[3]": "there is no model 'typo'; write provider/model",
    }


@pytest.mark.parametrize(
    ("entry", "paths"),
    [
        ({"models": [{"naem": "m"}], "defaults": {"chat": "m"}}, {"models[0].naem", "models[0].name"}),
        ({"models": [{"name": "x", "aliases": "m"}]}, {"models[0].aliases"}),
        ({"models": 7}, {"models"}),
        ({"base_url": 7}, {"base_url"}),
        ({"dialect": 7}, {"dialect"}),
        ({"auth": {"kind": "header", "header": "x", "env": 7}}, {"auth.env"}),
    ],
)
def test_what_hangs_on_something_unreadable_is_not_judged(entry, paths):
    """A fault of type is told alone, without consequences that would go away with it."""
    overlay = {"second": {"dialect": "openai", "base_url": "http://127.0.0.1:9000/v1", **entry}}

    assert set(faults_of(overlay, {"best": ["m"]} if "models" in entry else {})) == {
        f"providers.second.{path}" for path in paths
    }


def test_an_entry_that_is_no_table_is_one_fault():
    """A value in place of a provider's table is told once, and the name counts as a provider's."""
    assert faults_of({"second": 7}, {"best": ["second/m"]}) == {
        "providers.second": "expected `table`, got `int`"
    }


def test_a_provider_is_its_dialect_unless_it_has_a_module(monkeypatch):
    """A module's own value comes before the dialect's."""
    dialects = {"openai": Provider(dialect="openai", decode_error=lambda reply, target: None)}
    assert load_provider(ProviderSpec(dialect="openai"), dialects) is dialects["openai"]
    module = type(sys)("llm_gate.providers.own")
    module.provider = Provider(dialect="own", decode_error=lambda reply, target: None)
    module.__spec__ = type(sys.__spec__)(module.__name__, None)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert load_provider(ProviderSpec(dialect="openai", module="own"), dialects) is module.provider
    del module.provider
    with pytest.raises(CatalogFaults):
        load_provider(ProviderSpec(module="own"), dialects)


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        (ProviderSpec(dialect="klingon"), "dialect"),
        (ProviderSpec(), "dialect"),
        (ProviderSpec(module="nobody"), "module"),
        (ProviderSpec(module="..engine"), "module"),
        (ProviderSpec(module="a.b"), "module"),
    ],
)
def test_an_unknown_module_or_dialect_is_a_fault(spec, path):
    """What cannot be loaded is named, and nothing outside the providers' folder is imported."""
    with pytest.raises(CatalogFaults) as caught:
        load_provider(spec, {})
    assert [fault.path for fault in caught.value.faults] == [path]
