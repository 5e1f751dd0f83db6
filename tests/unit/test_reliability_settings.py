"""What the operator says of retries, cooldowns, room, shutdown and the targets of aliases."""

from pathlib import Path

import pytest
from msgspec import structs

from llm_gate.bootstrap.reach import attempt_policy, cooldown_rules
from llm_gate.domain.catalog import Alias, AliasTarget
from llm_gate.domain.errors import ProviderRateLimited, ProviderUnavailable
from llm_gate.domain.policy import FACTORY, GATEWAY, AttemptPolicy, CooldownRules, pause_before_repeat
from llm_gate.settings import SettingsFaults, load_settings
from support.aliases import alias_of


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def settings_of(text="", environment=None):
    Path("llm-gate.toml").write_text(text, encoding="utf-8")
    return load_settings(environment or {})


def faults(text, environment=None):
    with pytest.raises(SettingsFaults) as caught:
        settings_of(text, environment)
    return [(place.line, place.key) for place in caught.value.places]


def test_nothing_said_is_the_gateways_preset():
    """Without a word the records' own defaults hold, and nothing is capped."""
    settings = settings_of()
    assert attempt_policy(settings) == GATEWAY
    assert cooldown_rules(settings) == CooldownRules()
    assert (settings.server.max_in_flight, settings.server.drain_s) == (None, 30.0)
    assert settings.timeouts.first_event_s == 300.0
    said = settings.retries
    assert (said.budget_percent, said.budget_floor, said.hedge_percent, said.wait) == (10, 3, 5, True)


def test_every_setting_is_read():
    """Each key of the tables arrives where it belongs."""
    settings = settings_of("""
        [server]
        max_in_flight = 100
        drain_s = 5
        [timeouts]
        first_event_s = 60
        [retries]
        tries = 3
        last_tries = 4
        pause_s = 0.1
        last_pause_s = 0
        longest_pause_s = 2
        rate_pause_s = 1
        hedge_after_s = 1.5
        budget_percent = 20
        budget_floor = 0
        hedge_percent = 100
        [cooldown]
        failures = 0
        window = 50
        first_s = 2
        longest_s = 8
        broken_first_s = 10
        broken_longest_s = 60
        longest_wish_s = 0
    """)
    assert (settings.server.max_in_flight, settings.server.drain_s) == (100, 5.0)
    assert settings.timeouts.first_event_s == 60.0
    assert attempt_policy(settings) == AttemptPolicy(
        tries=3,
        last_tries=4,
        pause_s=0.1,
        last_pause_s=0.0,
        longest_pause_s=2.0,
        rate_pause_s=1.0,
        hedge_after_s=1.5,
    )
    said = settings.retries
    assert (said.budget_percent, said.budget_floor, said.hedge_percent) == (20, 0, 100)
    assert cooldown_rules(settings) == CooldownRules(
        failures=0,
        window=50,
        first_s=2.0,
        longest_s=8.0,
        broken_first_s=10.0,
        broken_longest_s=60.0,
        longest_wish_s=0.0,
    )


def test_what_is_said_goes_over_the_preset():
    """The factory's preset is as documented, and each field can still be changed."""
    assert attempt_policy(settings_of('[retries]\npreset = "factory"')) == FACTORY
    changed = attempt_policy(
        settings_of('[retries]\npreset = "factory"\nlast_tries = 1\nlongest_pause_s = 9')
    )
    assert changed == structs.replace(FACTORY, last_tries=1, longest_pause_s=9.0)


def test_a_first_cooldown_is_never_longer_than_the_longest():
    """Who lengthens the first alone gets no shorter ones after it."""
    rules = cooldown_rules(settings_of("[cooldown]\nfirst_s = 30\nbroken_first_s = 600"))
    assert (rules.first_s, rules.longest_s) == (30.0, 30.0)
    assert (rules.broken_first_s, rules.broken_longest_s) == (600.0, 600.0)


@pytest.mark.parametrize("preset", ["gateway", "factory"])
@pytest.mark.parametrize(
    ("table", "environment"),
    [
        ("wait = false", {}),
        ("", {"LLM_GATE_NO_WAITING": "1"}),
        ("wait = true", {"LLM_GATE_NO_WAITING": "Yes"}),
    ],
)
def test_without_waiting_no_pause_is_made(preset, table, environment):
    """As often as ever, at once; and who asks for patience is not asked again before it."""
    policy = attempt_policy(settings_of(f'[retries]\npreset = "{preset}"\n{table}', environment))

    for is_last in (False, True):
        down = ProviderUnavailable("down", provider="first")
        allowed = policy.last_tries if is_last else policy.tries
        pauses = [
            pause_before_repeat(policy, down, tries=tries, is_last=is_last, chance=1.0)
            for tries in range(1, allowed + 1)
        ]
        assert pauses == [0.0] * (allowed - 1) + [None]
        for error in (
            ProviderUnavailable("down", provider="first", retry_after_s=0.5),
            ProviderRateLimited("full", provider="first", retry_after_s=0.5),
        ):
            assert pause_before_repeat(policy, error, tries=1, is_last=is_last, chance=1.0) is None


def test_waiting_can_be_switched_on_again_by_the_environment():
    """A variable that says no leaves the pauses, whatever the file says."""
    settings = settings_of("[retries]\nwait = false", {"LLM_GATE_NO_WAITING": "False"})
    assert attempt_policy(settings) == GATEWAY
    with pytest.raises(SettingsFaults) as caught:
        settings_of("", {"LLM_GATE_NO_WAITING": "perhaps"})
    (fault,) = caught.value.faults
    assert (fault.path, fault.message) == ("environment: LLM_GATE_NO_WAITING", "expected True or False")


def test_the_targets_of_an_alias_are_texts_or_tables():
    """Both forms may stand side by side; a text weighs 1."""
    aliases = settings_of("""
        [aliases]
        plain = { targets = ["openai/a", "openai/b"] }
        [aliases.shared]
        strategy = "weighted"
        sticky = "user"
        targets = [{ target = "openai/a", weight = 3 }, "openai/b"]
        [aliases.even]
        strategy = "weighted"
        targets = [{ target = "openai/a", weight = 1 }, { target = "openai/b", weight = 1 }]
    """).aliases
    assert aliases["plain"] == alias_of("openai/a", "openai/b")
    assert aliases["shared"] == Alias(
        targets=(AliasTarget(target="openai/a", weight=3), AliasTarget(target="openai/b")),
        strategy="weighted",
        sticky="user",
    )
    assert {each.weight for each in aliases["even"].targets} == {1}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            (
                '[retries]\npreset = "fast"\ntries = 0\nlast_tries = 21\npause_s = -1\nlast_pause_s = 3601\n'
                "longest_pause_s = nan\nrate_pause_s = true\nhedge_after_s = 0"
            ),
            [
                (2, "retries.preset"),
                (3, "retries.tries"),
                (4, "retries.last_tries"),
                (5, "retries.pause_s"),
                (6, "retries.last_pause_s"),
                (7, "retries.longest_pause_s"),
                (8, "retries.rate_pause_s"),
                (9, "retries.hedge_after_s"),
            ],
        ),
        (
            '[retries]\nbudget_percent = 101\nbudget_floor = -1\nhedge_percent = 2.5\nwait = "no"\ntry = 1',
            [
                (6, "retries.try"),
                (2, "retries.budget_percent"),
                (3, "retries.budget_floor"),
                (4, "retries.hedge_percent"),
                (5, "retries.wait"),
            ],
        ),
        (
            (
                "[cooldown]\nfailures = -1\nwindow = 1\nfirst_s = 0\nlongest_s = inf\nbroken_first_s = nan\n"
                'broken_longest_s = "1"\nlongest_wish_s = -1'
            ),
            [
                (2, "cooldown.failures"),
                (3, "cooldown.window"),
                (4, "cooldown.first_s"),
                (5, "cooldown.longest_s"),
                (6, "cooldown.broken_first_s"),
                (7, "cooldown.broken_longest_s"),
                (8, "cooldown.longest_wish_s"),
            ],
        ),
        ("[server]\nmax_in_flight = 0\ndrain_s = inf", [(2, "server.max_in_flight"), (3, "server.drain_s")]),
        ("[timeouts]\nfirst_event_s = 0", [(2, "timeouts.first_event_s")]),
        (
            (
                '[aliases.a]\nstrategy = "best"\nsticky = "me"\ntargets = [\n"x/y",\n{ target = 7 },\n'
                '{ target = "x/y", weight = 0 },\n{ weight = 1 },\n5,\n]\nretries = 1'
            ),
            [
                (11, "aliases.a.retries"),
                (2, "aliases.a.strategy"),
                (3, "aliases.a.sticky"),
                (6, "aliases.a.targets[1].target"),
                (7, "aliases.a.targets[2].weight"),
                (8, "aliases.a.targets[3].target"),
                (9, "aliases.a.targets[4]"),
            ],
        ),
        (
            '[aliases.a]\ntargets = [\n"x/y",\n{ target = "x/z", weight = 2 },\n]',
            [(4, "aliases.a.targets[1].weight")],
        ),
        (
            '[aliases.a]\nstrategy = []\nsticky = {}\ntargets = [{ target = "x/z", weight = 2 }]',
            [(2, "aliases.a.strategy"), (3, "aliases.a.sticky")],
        ),
        ('[aliases.a]\nstrategy = [1]\ntargets = ["x/z"]', [(2, "aliases.a.strategy")]),
    ],
)
def test_every_fault_is_named_with_its_line(text, found):
    """The new tables are checked as strictly as the others, all of them in one run."""
    assert sorted(faults(text), key=str) == sorted(found, key=str)
