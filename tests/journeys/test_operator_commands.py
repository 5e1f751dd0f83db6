"""An operator's day on the command line: keys, plans, subscriptions, credentials, the store."""

import json
import sqlite3
import time
import urllib.error
import urllib.request

import psycopg
import pytest

from llm_gate.domain.keys import check_form
from support.forking import clean_environment, run_command
from support.gateway import running_gateway
from support.stores import postgresql_address, postgresql_name
from support.upstream import Answer, fake_upstream

PEPPER = "p" * 40
QUESTION = json.dumps({"model": "default", "messages": [{"role": "user", "content": "Hello"}]}).encode()


@pytest.fixture
def gate(tmp_path):
    def run(*words, stdin="", code=0, **environment):
        done = run_command(*words, folder=tmp_path, environment=clean_environment(environment), text=stdin)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout) if "--json" in words and code == 0 else done.stdout + done.stderr

    return run


def ask(url, key=None):
    request = urllib.request.Request(f"{url}/v1/chat/completions", QUESTION)
    request.add_header("content-type", "application/json")
    if key is not None:
        request.add_header("authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=10) as reply:
            return reply.status
    except urllib.error.HTTPError as error:
        error.read()
        return error.code


def becomes(status, url, key=None):
    """Wait for a status, a second and some slack for a busy machine."""
    deadline = time.monotonic() + 5
    while (found := ask(url, key)) != status and time.monotonic() < deadline:
        time.sleep(0.05)
    return found == status


def test_a_key_from_its_creation_to_its_end(gate, tmp_path):
    """What is printed is what scripts rely on; the key itself is in no file."""
    created = gate(
        *("keys", "create", "--client", "demo", "--user", "u1", "--scope", "inference,usage:read"),
        *("--limit", "requests_per_minute=60", "--limit", "monthly_cost_usd=0.05", "--json"),
    )
    key, key_id = created["key"], created["id"]

    assert check_form(key)
    assert key.startswith("lgk_")
    assert (created["client"], created["user"], created["tenant"]) == ("demo", "u1", "default")
    assert created["scopes"] == ["inference", "usage:read"]
    assert created["limits"] == {"monthly_cost_usd": 0.05, "requests_per_minute": 60}
    assert (tmp_path / "data" / "pepper").stat().st_mode & 0o777 == 0o600
    assert not any(key.encode() in path.read_bytes() for path in (tmp_path / "data").iterdir())

    rotated = gate("keys", "rotate", key_id, "--overlap", "2h", "--json")
    assert rotated["replaces"] == key_id
    assert rotated["old_key_ends_at"] > rotated["created_at"]
    assert gate("keys", "revoke", rotated["id"], "--json")["state"] == "revoked"
    listed = gate("keys", "list", "--json")
    assert [(each["id"], each["state"]) for each in listed] == [
        (key_id, "retiring"),
        (rotated["id"], "revoked"),
    ]
    table = gate("keys", "list")
    assert key[:12] in table
    assert key not in table
    assert "there is no key 'key_x'" in gate("keys", "revoke", "key_x", code=1)
    assert "--client" in gate("keys", "create", code=2)
    assert "inference, usage:read, metrics:read, admin" in gate(
        "keys", "create", "--client", "a", "--scope", "root", code=2
    )


def test_plans_and_subscriptions(gate):
    """A plan is made, changed and held; what a command does not name stays."""
    made = gate("plans", "set", "Team", "--set", "monthly_cost_usd=0.05", "--set", "mode=strict", "--json")
    assert (made["name"], made["limits"], made["mode"]) == ("team", {"monthly_cost_usd": 0.05}, "strict")
    changed = gate(
        "plans", "set", "team", "--set", "requests_per_minute=60", "--set", "image_calls=5", "--json"
    )
    assert changed["limits"] == {"image_calls": 5, "monthly_cost_usd": 0.05, "requests_per_minute": 60}
    assert changed["mode"] == "strict"
    names = [plan["name"] for plan in gate("plans", "list", "--json")]
    assert names == ["free", "team", "unlimited", "basic", "pro", "enterprise"]
    assert "0.05 USD" in gate("plans", "show", "team")
    assert "text_calls" in gate("plans", "set", "team", "--set", "text_cals=1", code=1)

    held = gate("users", "subscribe", "ann", "--plan", "TEAM", "--json")
    assert (held["user"], held["plan"], held["subscription"]["cycle"]) == ("ann", "team", "monthly")
    assert held["renewal"] == {"type": "new", "count": 0, "from": None}
    shown = gate("users", "show", "ann", "--json")
    assert (shown["active"], shown["plan"]["name"]) == (True, "team")
    assert shown["subscription"] == held["subscription"]
    assert gate("users", "show", "ann", "--tenant", "acme", "--json")["subscription"] is None
    assert gate("users", "cancel", "ann", "--json")["subscription"]["auto_renew"] is False
    assert "there is no plan 'gold'" in gate("users", "subscribe", "ann", "--plan", "gold", code=1)


def test_a_vendor_s_credential_goes_in_and_never_out(gate, tmp_path):
    """The value comes from standard input, under any of the provider's names, and is printed nowhere."""
    secret = "sk-vendor-0123456789abcdef"

    assert secret not in gate("credentials", "set", "claude", "--tenant", "acme", stdin=f"{secret}\n")
    assert "expected the credential" in gate("credentials", "set", "openai", stdin="\n", code=2)
    assert "is none of" in gate("credentials", "set", "nobody", stdin="x", code=2)
    listed = gate("credentials", "list", "--json")
    assert [(each["tenant"], each["provider"]) for each in listed] == [("acme", "anthropic")]
    assert not any(secret.encode() in path.read_bytes() for path in (tmp_path / "data").iterdir())
    assert gate("credentials", "remove", "anthropic", "--tenant", "acme", "--json")["removed"] is True
    assert gate("credentials", "list", "--json") == []


def test_commands_take_effect_in_a_running_gateway(gate):
    """A first key closes the door to everybody else, rotation and revocation are felt, all without a restart."""
    with running_gateway() as gateway:
        assert ask(gateway.url) == 200
        where = ("--data-dir", f"{gateway.folder}/data", "--no-env-file", "--json")
        created = gate("keys", "create", "--client", "demo", "--user", "u1", *where)
        assert becomes(401, gateway.url)
        assert becomes(200, gateway.url, created["key"])
        rotated = gate("keys", "rotate", created["id"], "--overlap", "0", *where)
        assert becomes(200, gateway.url, rotated["key"])
        assert becomes(401, gateway.url, created["key"])

        gate("plans", "set", "none", "--set", "text_calls=0", *where)
        gate("users", "subscribe", "u1", "--plan", "none", *where)
        assert becomes(403, gateway.url, rotated["key"])
        gate("plans", "set", "none", "--set", "text_calls=unlimited", *where)
        assert becomes(200, gateway.url, rotated["key"])
        gate("keys", "revoke", rotated["id"], *where)
        assert becomes(401, gateway.url, rotated["key"])


def test_postgresql_by_its_variable(gate, tmp_path):
    """An empty database is filled; one of an older version is changed by `migrate` alone; a wrong pepper is told."""
    with postgresql_name() as name:
        store = {"LLM_GATE_DATABASE_URL": postgresql_address(name), "LLM_GATE_PEPPER": PEPPER}

        assert "needs LLM_GATE_PEPPER" in gate("plans", "list", code=2, **{**store, "LLM_GATE_PEPPER": ""})
        assert gate("keys", "create", "--admin", "--json", **store)["scopes"] == [
            "admin",
            "inference",
            "usage:read",
        ]
        assert gate("migrate", "--json", **store) == {"migrated": False, "version": "0004"}
        assert "is not the one" in gate("keys", "list", code=1, **{**store, "LLM_GATE_PEPPER": "q" * 40})
        assert not (tmp_path / "data").exists()
        assert len(gate("keys", "list", "--json", **store)) == 1
        with psycopg.connect(postgresql_address(name)) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '0000'")
        for command in (("keys", "list"), ("serve", "--port", "0")):
            assert "run `llm-gate migrate`" in gate(*command, code=1, **store)


def test_a_store_of_another_version_is_told(gate, tmp_path):
    """The embedded store of a later version is left as it is."""
    gate("migrate")
    with sqlite3.connect(tmp_path / "data" / "llm-gate.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    assert "later version" in gate("plans", "list", code=1)
    assert "later version" in gate("migrate", code=1)


GOOD = {
    "choices": [{"message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1000, "completion_tokens": 2, "total_tokens": 1002},
}
TWO = """
    [providers.{name}]
    dialect = "openai"
    base_url = "{url}/{name}/v1"
    auth = {{ kind = "bearer", env = "{NAME}_API_KEY" }}
    defaults = {{ chat = "m" }}
    [[providers.{name}.models]]
    name = "m"
    operations = ["chat"]
    abilities = [{abilities}]
    prices = [
        {{ unit = "input_tokens", per = 1_000_000, usd = "0.15" }},
        {{ unit = "output_tokens", per = 1_000_000, usd = "0.60" }},
    ]
"""
KEYS = {"FIRST_API_KEY": "first-fake-0123456789", "SECOND_API_KEY": "second-fake-0123456789"}


def configure_two(folder, url):
    tables = (("first", '"tools"'), ("second", '"json_object"'))
    text = "".join(TWO.format(name=n, NAME=n.upper(), url=url, abilities=each) for n, each in tables)
    alias = '[aliases.best]\ntargets = ["second/m", "first/m", "openai/gpt-4o-mini"]\n'
    (folder / "llm-gate.toml").write_text(text + alias, encoding="utf-8")


def test_explain_needs_no_server_and_no_store(gate, tmp_path):
    """Who would be asked, in order, and who not; nothing is opened or made for it."""
    configure_two(tmp_path, "http://127.0.0.1:9")
    found = gate("explain", "best", "--json", **KEYS)

    assert [each["name"] for each in found["targets"]] == ["second/m", "first/m"]
    assert [each["position"] for each in found["targets"]] == [1, 2]
    assert "openai" in found["left"][0]["name"]
    assert "OPENAI_API_KEY" in found["left"][0]["reason"]
    able = gate("explain", "best", "--needs", "tools", "--json", **KEYS)
    assert [each["name"] for each in able["targets"]] == ["first/m"]
    table = gate("explain", "first/m", "--fallback", "sandbox/chat", **KEYS)
    assert table.index("first/m") < table.index("sandbox/chat")
    assert "nothing-like-it" in gate("explain", "nothing-like-it", code=1, **KEYS)
    assert "magic" in gate("explain", "best", "--needs", "magic", code=2, **KEYS)
    assert not (tmp_path / "data").exists()


def test_providers_can_be_asked_whether_they_answer(gate, tmp_path):
    """Each one is asked once; what it says, what it costs and whether all went well is told."""
    with fake_upstream() as upstream:
        configure_two(tmp_path, upstream.url)
        upstream.will(Answer.json(GOOD))
        rows = {each["name"]: each for each in gate("providers", "--check", "--json", **KEYS)}
        assert {name: each["ok"] for name, each in rows.items()} == {
            "first": True,
            "second": True,
            "sandbox": True,
        }
        assert rows["first"]["asked"] == "first/m"
        assert rows["first"]["cost_usd"] == 0.0001512
        assert rows["sandbox"]["cost_usd"] == 0
        assert {seen.json["max_tokens"] for seen in upstream.seen} == {16}
        assert set(gate("usage", "--json")["by_provider"]) == {"first", "sandbox", "second"}

        upstream.will(Answer.json({"error": {"message": "no such key"}}, 401))
        table = gate("providers", "--check", code=1, **KEYS)
        assert len(upstream.seen) == 2
        assert "refused the gateway's credential" in table
        assert "The check cost" in table
        assert KEYS["FIRST_API_KEY"] not in table
