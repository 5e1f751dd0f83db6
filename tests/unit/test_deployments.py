"""The places of a provider: what the file and the environment say of them, and what becomes of it."""

from pathlib import Path

import pytest

from llm_gate.bootstrap.reach import directory_with, load_directory
from llm_gate.configuration import read_directory
from llm_gate.domain.policy import CapacityLimits, Deadlines
from llm_gate.domain.secret import Secret
from llm_gate.settings import SettingsFaults, load_settings

FIRST, SECOND = "sk-fake-first-0123456789", "sk-fake-second-0123456789"
OPENAI = {"OPENAI_API_KEY": FIRST, "OPENAI_API_KEY_SECOND": SECOND}
REGIONS = {
    "AZURE_OPENAI_EAST_US_API_KEY": FIRST,
    "AZURE_OPENAI_EAST_US_ENDPOINT": "https://east.example.com",
    "AZURE_OPENAI_WEST_US_API_KEY": SECOND,
    "AZURE_OPENAI_WEST_US_ENDPOINT": "https://west.example.com",
}
TWO = """\
[providers.openai]
rpm = 100
max_waiting = 7
timeouts = { connect_s = 3, idle_s = 40 }

[providers.openai.deployments.default]
weight = 3

[providers.openai.deployments.second]
env = "OPENAI_API_KEY_SECOND"
base_url = "https://eu.example.com/v1/"
rpm = 9
tpm = 1000
max_concurrent = 6
models = ["gpt-4o-mini"]
timeouts = { connect_s = 2 }
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settings_of(text, environment):
    Path("llm-gate.toml").write_text(text, encoding="utf-8")
    return load_settings(environment)


def places(text, environment, provider="openai"):
    return load_directory(settings_of(text, environment)).deployments.get(provider, ())


def faults(text, environment=OPENAI):
    with pytest.raises(SettingsFaults) as caught:
        read_directory(settings_of(text, environment))
    return {place.key: (place.line, message) for place, message in _told(caught.value)}


def _told(error):
    return [(place, fault.message) for place, fault in zip(error.places, error.faults, strict=True)]


def test_a_second_key_is_a_place_of_its_own():
    """Each place has its address, credential and share; what it says nothing of is the provider's."""
    own, second = places(TWO, OPENAI)

    assert (own.name, own.base_url, own.weight, own.models) == ("openai", "https://api.openai.com/v1", 3, ())
    assert own.auth.secret.reveal() == FIRST
    assert own.capacity == CapacityLimits(rpm=100, max_waiting=7)
    assert own.deadlines == Deadlines(connect_s=3, idle_s=40)
    assert (second.name, second.base_url, second.weight) == ("openai/second", "https://eu.example.com/v1", 1)
    assert second.auth.secret.reveal() == SECOND
    assert second.models == ("gpt-4o-mini",)
    assert second.capacity == CapacityLimits(rpm=9, tpm=1000, max_concurrent=6, max_waiting=7)
    assert second.deadlines == Deadlines(connect_s=2, idle_s=40)


def test_regions_are_told_their_share_in_any_letter_case():
    """A table of a region's name makes no other place."""
    text = "[providers.azure_openai.deployments.east_us]\nweight = 5\napi_version = 'v1'\n"
    east, west = places(text, REGIONS, "azure_openai")

    assert (east.name, east.region, east.weight, east.api_version) == (
        "azure_openai/EAST_US",
        "EAST_US",
        5,
        "v1",
    )
    assert (west.name, west.region, west.weight) == ("azure_openai/WEST_US", "WEST_US", 1)
    assert west.api_version == "2024-10-21"


def test_limits_are_shared_out_where_processes_cannot_count_together():
    """Without Redis, rates are divided by the workers, and at least 1; the room of a process always is."""
    text = f"[server]\nworkers = 4\n{TWO}"
    alone = [place.capacity for place in places(text, OPENAI)]
    together = [
        place.capacity for place in places(text, {**OPENAI, "LLM_GATE_REDIS_URL": "redis://127.0.0.1:6379/0"})
    ]

    assert alone == [
        CapacityLimits(rpm=25, max_waiting=7),
        CapacityLimits(rpm=2, tpm=250, max_concurrent=1, max_waiting=7),
    ]
    assert together == [
        CapacityLimits(rpm=100, max_waiting=7),
        CapacityLimits(rpm=9, tpm=1000, max_concurrent=1, max_waiting=7),
    ]
    few = "[server]\nworkers = 64\n[providers.openai]\nrpm = 1\nmax_concurrent = 2\n"
    assert places(few, OPENAI)[0].capacity == CapacityLimits(rpm=1, max_concurrent=1)


def test_a_key_tells_places_and_credentials_apart_and_gives_none_away():
    """The same place has the same key after every start; another name, address or credential has another."""
    before, again = places(TWO, OPENAI), places(TWO, OPENAI)
    keys = [place.key for place in before]
    other_key = places(TWO, {**OPENAI, "OPENAI_API_KEY": f"{FIRST}0"})[0].key
    other_address = places(TWO, {**OPENAI, "LLM_GATE_OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})[0].key

    assert keys == [place.key for place in again]
    assert len({*keys, other_key, other_address}) == 4
    assert all(len(key) == 16 for key in keys)
    assert FIRST not in repr(before)
    assert SECOND not in repr(before)


def test_a_place_without_its_key_waits_for_it():
    """A missing variable leaves the place out, and is named where nothing else is usable."""
    assert [place.name for place in places(TWO, {"OPENAI_API_KEY": FIRST})] == ["openai"]
    assert [place.name for place in places(TWO, {"OPENAI_API_KEY_SECOND": SECOND})] == ["openai/second"]
    assert load_directory(settings_of(TWO, {})).hints["openai"] == "set OPENAI_API_KEY_SECOND"
    mirror = '[providers.openai.deployments.mirror]\nbase_url = "https://mirror.example.com/v1"\n'
    assert load_directory(settings_of(mirror, {})).hints["openai"] == "set OPENAI_API_KEY"
    assert [place.auth.secret.reveal() for place in places(mirror, OPENAI)] == [FIRST, FIRST]


def test_a_region_that_names_its_key_waits_for_it():
    """The same file is sound with and without the region's variables."""
    text = "[providers.azure_openai.deployments.EAST_US]\nenv = 'AZURE_OPENAI_EAST_US_API_KEY'\nweight = 2\n"
    (found,) = places(text, {k: v for k, v in REGIONS.items() if "EAST" in k}, "azure_openai")
    assert (found.name, found.weight) == ("azure_openai/EAST_US", 2)
    assert load_directory(settings_of(text, {})).hints["azure_openai"] == "set AZURE_OPENAI_EAST_US_API_KEY"


def test_a_tenants_own_credential_is_for_the_place_and_regions_of_the_provider():
    """What stands in the file alone has a key of the operator's, and is left out."""
    text = f"{TWO}\n[providers.azure_openai.deployments.third]\nenv = 'OPENAI_API_KEY_SECOND'\n"
    text += 'base_url = "https://third.example.com"\n'
    settings = settings_of(text, {**OPENAI, **REGIONS})
    usual = load_directory(settings)
    own = {"openai": Secret("sk-fake-tenant-0123456789"), "azure_openai": Secret("az-fake-tenant-0123456789")}
    theirs = directory_with(own, usual, settings).deployments

    names = {name: [place.name for place in found] for name, found in theirs.items() if name in own}
    assert names == {
        "openai": ["openai"],
        "azure_openai": ["azure_openai/EAST_US", "azure_openai/WEST_US"],
    }
    assert {place.auth.secret.reveal() for name in own for place in theirs[name]} == {
        secret.reveal() for secret in own.values()
    }
    assert not {p.key for n in own for p in theirs[n]} & {p.key for n in own for p in usual.deployments[n]}


@pytest.mark.parametrize(
    ("text", "key", "line", "message"),
    [
        ("[NAME.deployments.a]\nrpm = 0", "a.rpm", 2, "expected `int` >= 1"),
        ("[NAME.deployments.a]\nenv = 'X'\ntpm = 1.5", "a.tpm", 3, "expected `int | null`, got `float`"),
        ("[NAME.deployments.a]\nmax_waiting = -1", "a.max_waiting", 2, "expected `int` >= 0"),
        (
            "[NAME.deployments]\na = { timeouts = { idle_s = inf } }",
            "a.timeouts.idle_s",
            2,
            "expected `float` <= 604800.0",
        ),
        ("[NAME.deployments.a]\ncolour = 'red'", "a.colour", 2, "unknown field"),
        (
            "[NAME.deployments.a]\nbase_url = 'ftp://x'",
            "a.base_url",
            2,
            "expected an address that starts with http:// or https://",
        ),
        (
            "[NAME.deployments.'a b']\nenv = 'X'",
            "a b",
            1,
            "a deployment's name is made of letters, digits, ., _ and -",
        ),
        (
            "[NAME.deployments.a]\nenv = 'X'\n[NAME.deployments.A]\nenv = 'X'",
            "A",
            3,
            "the same name as 'a': capitals are not told apart",
        ),
        (
            "[NAME.deployments.Default]\nenv = 'X'",
            "Default.env",
            2,
            "does not apply to the provider's own place",
        ),
    ],
)
def test_every_fault_of_a_place_is_named_with_its_line(text, key, line, message):
    """What a place cannot be is told, each with its key and line."""
    found = faults(text.replace("NAME", "providers.openai"))
    assert found == {f"providers.openai.deployments.{key}": (line, message)}


def test_a_name_that_leads_nowhere_is_a_fault():
    """A slip in a region's name does not pass for a place that waits for its key."""
    text = "[providers.azure_openai.deployments.EAST_UK]\nweight = 2\n"
    found = faults(text, REGIONS)
    assert found == {
        "providers.azure_openai.deployments.EAST_UK": (
            1,
            "the name of an environment variable is missing: env",
        )
    }
    text = "[providers.azure_openai.deployments.third]\nenv = 'OPENAI_API_KEY'\n"
    assert faults(text, {**OPENAI, **REGIONS}) == {
        "providers.azure_openai.deployments.third": (1, "required field is missing: base_url")
    }


def test_a_faulty_place_hides_no_fault_of_another():
    """All that is wrong with the places comes at once, and nothing that follows from it."""
    text = """\
[providers.own]
dialect = "openai"
base_url = 7
rpm = "many"
strategy = "best"
auth = { kind = "bearer", env = "OPENAI_API_KEY" }

[providers.own.deployments]
a = { rpm = 0 }
b = { base_url = "ftp://x" }
c = { env = "OPENAI_API_KEY_SECOND" }
d = 7
"""
    found = faults(text)
    lines = {key.removeprefix("providers.own."): line for key, (line, _) in found.items()}
    assert lines == {
        "base_url": 3,
        "rpm": 4,
        "strategy": 5,
        "deployments.a.rpm": 9,
        "deployments.b.base_url": 10,
        "deployments.d": 12,
    }


def test_a_faulty_address_is_told_where_it_was_written():
    """The address of one place is not mistaken for that of another."""
    text = "[providers.azure_openai.deployments.third]\nenv = 'OPENAI_API_KEY'\n"
    environment = {**OPENAI, **REGIONS, "AZURE_OPENAI_ENDPOINT": "https://me@faulty.example.com"}
    with pytest.raises(SettingsFaults) as caught:
        read_directory(settings_of(text, environment))
    assert [place.key for place in caught.value.places] == ["AZURE_OPENAI_ENDPOINT"]
