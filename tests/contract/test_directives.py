"""What an operator decides is kept, read and audited alike on every store."""

import asyncio
import sqlite3
from asyncio import run
from itertools import count
from secrets import token_bytes

import msgspec
import pytest
from sqlalchemy import update

from llm_gate.domain.administration import Act, Change, Renewal
from llm_gate.domain.errors import Conflict, NotFound
from llm_gate.domain.keys import KeyHash
from llm_gate.domain.plans import Limits, Plan, Subscription
from llm_gate.domain.secret import Secret
from llm_gate.domain.stores import ApplicationEntry, TenantEntry
from llm_gate.engine.keys import KeyRequest, Keys
from llm_gate.storage import schema
from llm_gate.storage.administration import StoredAdministration
from llm_gate.storage.changes import broken_links
from llm_gate.storage.credentials import StoredCredentials
from llm_gate.storage.directives import StoredDirectives
from support.stores import KINDS, any_database

ACT = Act(actor="cli", action="test", at_ms=1_800_000_000_000)


class Stores:
    def __init__(self, database, kind, folder):
        self.database = database
        self.kind = kind
        self.folder = folder
        self.directives = StoredDirectives(database)
        self.administration = StoredAdministration(database)
        self.hash = KeyHash(b"pepper" * 6)
        serial = count()
        self.keys = Keys(
            administration=self.administration,
            key_hash=self.hash,
            now_ms=lambda: ACT.at_ms,
            new_id=lambda: f"{next(serial):08d}",
            randomness=token_bytes,
        )

    def everything(self):
        """Return all that is stored, as it would be stolen."""
        if self.kind == "sqlite":
            with sqlite3.connect(self.folder / "llm-gate.db") as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return b"".join(path.read_bytes() for path in self.folder.glob("llm-gate.db*"))
        tables = schema.metadata.sorted_tables
        rows = self.database.ask(
            lambda connection: [row for table in tables for row in connection.execute(table.select())]
        )
        values = (value for row in rows for value in row)
        return b"\n".join(value if isinstance(value, bytes) else str(value).encode() for value in values)


@pytest.fixture(params=KINDS)
def stores(request, tmp_path):
    with any_database(request.param, tmp_path) as database:
        yield Stores(database, request.param, tmp_path)


def plan(name, **fields):
    return Plan(name=name, label=name.title(), **fields)


def subscription(number, **fields):
    return Subscription(
        id=f"sub_{number}",
        tenant="t",
        user="ann",
        plan="pro",
        start_ms=number,
        term_end_ms=number + 9,
        **fields,
    )


def test_an_empty_store_has_nothing(stores):
    """Before any change every question has an answer."""

    async def ask():
        directives = stores.directives
        return [
            await directives.revision(),
            await directives.has_keys(),
            await directives.key_of(b"x"),
            await directives.plan("free"),
            await directives.plans(),
            await directives.subscription("t", "u"),
            await directives.tenant("t"),
            await directives.application("t", "a"),
        ]

    assert run(ask()) == [0, False, None, None, (), None, None, None]


def test_a_key_is_found_by_its_digest_alone(stores):
    """What was issued comes back whole; the text of the key is nowhere in the store, nor in the audit."""
    request = KeyRequest(
        application="shop",
        tenant="acme",
        user="ann",
        name="till",
        scopes=frozenset({"inference"}),
        allowed_models=("openai/*", "gpt-4o"),
        limits={"requests_per_minute": 60, "monthly_cost_usd": 50_000_000, "text_calls": None},
        expires_at_ms=ACT.at_ms + 5,
    )
    issued = run(stores.keys.issue(request))
    text = issued.text.reveal()

    assert run(stores.directives.has_keys())
    assert run(stores.directives.key_of(stores.hash.digest(text))) == issued.key
    assert run(stores.directives.key_of(b"another")) is None
    assert issued.key.limits.since_ms == dict.fromkeys(("requests_per_minute", "monthly_cost_usd"), ACT.at_ms)
    stored = stores.everything()
    assert text.encode() not in stored
    assert text[12:-6].encode() not in stored
    assert b"lgk_" in stored
    audit = msgspec.json.encode(run(stores.administration.audit(None)))
    assert text.encode() not in audit
    assert b"digest" not in audit


def test_rotating_and_revoking_change_what_is_found(stores):
    """Both keys of a rotation are stored in one step, and a revoked one comes back as such."""
    old = run(stores.keys.issue(KeyRequest(application="shop")))
    new = run(stores.keys.rotate(old.key.id))
    run(stores.keys.revoke(new.key.id))

    kept = run(stores.directives.key_of(stores.hash.digest(old.text.reveal())))
    assert kept.retires_at_ms == ACT.at_ms + 86_400_000
    assert run(stores.directives.key_of(stores.hash.digest(new.text.reveal()))).revoked_at_ms == ACT.at_ms
    assert [entry.action for entry in run(stores.administration.audit(None))] == [
        "key.revoke",
        "key.rotate",
        "key.rotate",
        "key.create",
    ]


def test_lists_are_pages_within_a_tenant(stores):
    """Pages follow each other without gaps; a tenant sees its own keys, None means all."""
    for index in range(7):
        run(stores.keys.issue(KeyRequest(application="a", tenant="odd" if index % 2 else "even")))

    async def all_of(tenant):
        found = []
        while page := await stores.administration.keys(tenant, after=found[-1].id if found else "", limit=2):
            assert len(page) <= 2
            found += page
        return [key.id[-1] for key in found]

    assert run(all_of(None)) == list("0123456")
    assert run(all_of("odd")) == list("135")
    assert run(all_of("nobody")) == []
    first = run(stores.administration.keys(None, limit=1))[0]
    assert run(stores.administration.key("odd", first.id)) is None
    assert run(stores.administration.key("even", first.id)) == first


def test_plans_come_back_the_cheapest_first(stores):
    """A plan is stored whole; a change sees what it was."""
    rich = plan(
        "rich",
        price_monthly_nanos=10**11,
        features=("a", "b"),
        mode="strict",
        limits=Limits(
            values={"text_calls": None, "monthly_cost_usd": 2**60}, since_ms={"monthly_cost_usd": 7}
        ),
        allowed_models=("x/*",),
        max_output_tokens=100,
    )
    seen = []

    def keep(wanted):
        def change(before):
            seen.append(before)
            return wanted

        return change

    run(stores.administration.change_plan("rich", keep(rich), ACT))
    run(stores.administration.change_plan("poor", keep(plan("poor")), ACT))
    run(stores.administration.change_plan("rich", keep(rich), ACT))

    assert seen == [None, None, rich]
    assert run(stores.directives.plan("rich")) == rich
    assert [each.name for each in run(stores.directives.plans())] == ["poor", "rich"]


def test_every_change_raises_the_revision_and_is_audited(stores):
    """A change is one step of the revision and one line with what differs; one that changes nothing is neither."""

    async def go():
        administration = stores.administration
        await administration.change_plan("p", lambda _: plan("p"), ACT)
        await administration.change_plan("p", lambda _: plan("p"), ACT)
        await administration.change_plan("p", lambda _: plan("p", mode="strict"), ACT)
        tenant = TenantEntry(id="t", plan="p", limits=Limits(values={"text_calls": 1}))
        assert await administration.change_tenant("t", lambda _: tenant, ACT) == tenant
        entry = ApplicationEntry(tenant="t", id="a", allowed_models=("x",), is_active=False)
        assert await administration.change_application("t", "a", lambda _: entry, ACT) == entry
        return tenant, entry

    tenant, entry = run(go())
    audit = run(stores.administration.audit(None))

    assert run(stores.directives.revision()) == 4
    assert [(line.tenant, line.target) for line in audit] == [("t", "a"), ("t", "t"), ("", "p"), ("", "p")]
    assert audit[2].change == {"mode": ("balanced", "strict")}
    assert run(stores.directives.tenant("t")) == tenant
    assert run(stores.directives.application("t", "a")) == entry
    assert run(stores.administration.tenants()) == (tenant,)
    assert run(stores.administration.applications("t")) == (entry,)
    assert [line.number for line in run(stores.administration.audit("t", limit=1))] == [audit[0].number]
    assert run(stores.administration.audit("t", before=audit[1].number)) == ()


def test_a_change_that_fails_leaves_nothing_behind(stores):
    """Neither a row nor a line nor the revision remains of it."""

    def refuse(_):
        raise Conflict("no")

    with pytest.raises(Conflict):
        run(stores.administration.change_plan("p", refuse, ACT))
    with pytest.raises(NotFound):
        run(stores.administration.change_key(None, "key_none", lambda key: (key,), ACT))

    assert run(stores.directives.revision()) == 0
    assert run(stores.directives.plan("p")) is None
    assert run(stores.administration.audit(None)) == ()


def test_an_altered_audit_is_noticed(stores):
    """Each line is chained to the one before, so that a change or a gap shows from there on."""
    for index in range(4):
        run(stores.administration.change_plan(f"p{index}", lambda _, i=index: plan(f"p{i}"), ACT))

    assert stores.database.ask(broken_links) == []
    table = schema.audit
    second = run(stores.administration.audit(None))[2].number
    changed = update(table).where(table.c.number == second).values(actor="nobody")
    stores.database.change(lambda connection: connection.execute(changed))
    assert stores.database.ask(broken_links) == [second]
    stores.database.change(
        lambda connection: connection.execute(table.delete().where(table.c.number == second))
    )
    assert len(stores.database.ask(broken_links)) == 1


def test_changes_from_everywhere_wait_for_each_other(stores):
    """Of many changes at once none is lost, and the audit stays one chain."""

    def more(before):
        return plan(
            "p",
            limits=Limits(values={"text_calls": 1 + (before.limits.values["text_calls"] if before else 0)}),
        )

    async def go():
        await asyncio.gather(*(stores.administration.change_plan("p", more, ACT) for _ in range(40)))

    run(go())

    assert run(stores.directives.plan("p")).limits.values == {"text_calls": 40}
    assert run(stores.directives.revision()) == 40
    assert stores.database.ask(broken_links) == []


def test_a_new_subscription_ends_the_one_held(stores):
    """A user holds one at a time; the history keeps a line for each, the newest first."""

    def take(number, **fields):
        new = subscription(number, **fields)
        line = Renewal(
            id=new.id,
            tenant="t",
            user="ann",
            kind="new",
            number=number,
            subscription=new.id,
            plan="pro",
            plan_label="Pro",
            plan_tier="pro",
            start_ms=0,
            end_ms=1,
            cycle="monthly",
            usage_before={"requests": 3},
            created_at_ms=number,
        )
        seen = []

        def change(held, last):
            seen.append((held, last))
            return Change(subscription=new, renewal=line)

        run(stores.administration.change_subscription("t", "ann", change, ACT))
        return new, line, seen[0]

    first, first_line, before_first = take(1)
    second, second_line, before_second = take(2, cycle="yearly", auto_renew=False)

    assert before_first == (None, None)
    assert before_second == (first, first_line)
    assert run(stores.directives.subscription("t", "ann")) == second
    assert run(stores.directives.subscription("other", "ann")) is None
    assert run(stores.administration.subscriptions("t")) == (second,)
    assert run(stores.administration.renewals("t", "ann")) == ((second_line, first_line), 2)
    assert run(stores.administration.renewals("t", "ann", limit=1, offset=1)) == ((first_line,), 2)
    assert run(stores.administration.renewals("other", "ann")) == ((), 0)

    altered = msgspec.structs.replace(second, auto_renew=True)
    run(stores.administration.change_subscription("t", "ann", lambda *_: Change(subscription=altered), ACT))
    assert run(stores.directives.subscription("t", "ann")) == altered
    assert run(stores.administration.renewals("t", "ann"))[1] == 2


def test_credentials_are_sealed(stores):
    """A vendor's key can be used and replaced, is not in the store as it is, and opens in no other row."""
    credentials = StoredCredentials(stores.database, bytes(32))
    secret = "sk-vendor-secret-0123456789"

    async def go():
        await credentials.put("acme", "openai", Secret("an older one"), ACT)
        await credentials.put("acme", "openai", Secret(secret), ACT)
        await credentials.put("acme", "gemini", Secret("other"), ACT)
        return await credentials.load_all(), await credentials.entries(None)

    loaded, entries = run(go())
    assert {name: value.reveal() for name, value in loaded.items()} == {
        ("acme", "openai"): secret,
        ("acme", "gemini"): "other",
    }
    assert [(entry.tenant, entry.provider) for entry in entries] == [("acme", "gemini"), ("acme", "openai")]
    assert run(credentials.entries("nobody")) == ()
    assert secret.encode() not in stores.everything()
    assert secret.encode() not in msgspec.json.encode(run(stores.administration.audit("acme")))

    table = schema.credential
    moved = update(table).where(table.c.provider == "openai").values(tenant="thief")
    stores.database.change(lambda connection: connection.execute(moved))
    assert set(run(credentials.load_all())) == {("acme", "gemini")}
    assert run(StoredCredentials(stores.database, bytes(31) + b"1").load_all()) == {}
    assert run(credentials.remove("acme", "gemini", ACT)) is True
    assert run(credentials.remove("acme", "gemini", ACT)) is False
    assert run(credentials.load_all()) == {}
