import pickle
import re
from asyncio import run
from contextlib import contextmanager
from itertools import count
from secrets import token_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_gate.domain.access import VirtualKey
from llm_gate.domain.errors import Conflict, InvalidRequest, NotAllowed, NotFound
from llm_gate.domain.keys import RANDOM_BYTES, KeyHash, check_form, key_text, shown_part
from llm_gate.domain.plans import Limits
from llm_gate.engine.keys import Authority, KeyRequest, Keys
from llm_gate.storage.administration import StoredAdministration
from support.figures import property_of
from support.stores import sqlite_database

DAY_MS = 86_400_000
SCOPES = st.frozensets(st.sampled_from(["inference", "usage:read", "admin", "operator"]), min_size=1)
MODELS = st.lists(st.sampled_from(["openai/*", "openai/gpt-4o", "gpt-*", "gpt-4o", "x"]), max_size=3).map(
    tuple
)
LIMITS = st.dictionaries(
    st.sampled_from(["requests_per_minute", "text_calls"]),
    st.one_of(st.none(), st.integers(0, 20)),
    max_size=2,
)


class Clock:
    def __init__(self):
        self.now_ms = 1_800_000_000_000

    def __call__(self):
        return self.now_ms


@contextmanager
def keys_in(folder):
    with sqlite_database(folder) as database:
        serial = count()
        clock = Clock()
        keys = Keys(
            administration=StoredAdministration(database),
            key_hash=KeyHash(b"secret" * 6),
            now_ms=clock,
            new_id=lambda: f"{clock():012x}{next(serial):06x}",
            randomness=token_bytes,
        )
        yield keys, clock


@property_of()
@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES), st.booleans())
def test_every_key_has_the_form(randomness, is_admin):
    """A key says what it is for, carries all random bits, and passes its own check."""
    text = key_text(randomness, is_admin=is_admin)

    assert re.fullmatch(r"lga_[0-9A-Za-z]{39}" if is_admin else r"lgk_[0-9A-Za-z]{39}", text)
    assert check_form(text)
    assert 62**33 >= 2 ** (8 * RANDOM_BYTES) >= 2**160


def test_different_randomness_gives_different_keys():
    """The greatest and the smallest random numbers are told apart, as are neighbours."""
    numbers = [0, 1, 62, 2**191, 2**192 - 1]

    assert len({key_text(number.to_bytes(24)) for number in numbers}) == 5
    assert key_text(bytes(24)) == "lgk_" + "0" * 33 + key_text(bytes(24))[-6:]


@property_of()
@given(st.binary(min_size=24, max_size=24), st.integers(0, 42), st.characters(codec="ascii"))
def test_a_typo_is_refused_without_a_look_up(randomness, place, wrong):
    """Whichever character is mistyped, left out or doubled, the form is not right."""
    text = key_text(randomness)
    typo = text[:place] + wrong + text[place + 1 :]

    assert check_form(typo) is (typo == text)
    assert not check_form(text[:place] + text[place + 1 :])
    assert not check_form(text[:place] + text[place] + text[place:])


@pytest.mark.parametrize("text", ["", "lgk_", "sk-abc", "lgk_" + "0" * 39, "lgk_" + "é" * 39, "lgk_\n"])
def test_other_texts_are_no_keys(text):
    """What was never a key is seen at a glance."""
    assert not check_form(text)
    assert KeyHash(b"s")(text) is None


def test_the_hash_shows_itself_to_nobody():
    """Neither printing nor pickling gives the secret away; the digest depends on secret and key."""
    text = key_text(bytes(24))
    one, other = KeyHash(b"secret-one"), KeyHash(b"secret-two")

    assert "secret" not in repr(one)
    with pytest.raises(TypeError):
        pickle.dumps(one)
    assert one(text) == one.digest(text) != other.digest(text)
    assert len(one.digest(text)) == 32
    assert shown_part(text) == text[:12]


def test_a_rotated_key_works_until_its_overlap_ends(tmp_path):
    """The new key has what the old one had; the old one works a day longer, or not at all."""
    with keys_in(tmp_path) as (keys, clock):
        request = KeyRequest(application="shop", user="ann", limits={"text_calls": 5}, name="n")
        old = run(keys.issue(request)).key
        new = run(keys.rotate(old.id)).key
        kept, fresh = run(keys.list())

        assert kept.id == old.id
        assert kept.replaced_by == fresh.id == new.id
        assert kept.is_valid(clock() + DAY_MS - 1)
        assert not kept.is_valid(clock() + DAY_MS)
        assert (fresh.application, fresh.user, fresh.name, fresh.limits) == ("shop", "ann", "n", old.limits)
        assert fresh.digest != kept.digest
        with pytest.raises(Conflict, match="was replaced by"):
            run(keys.rotate(old.id))
        newest = run(keys.rotate(new.id, overlap_s=0)).key
        assert [key.is_valid(clock()) for key in run(keys.list())] == [True, False, True]
        run(keys.revoke(newest.id))
        with pytest.raises(Conflict, match="does not work any more"):
            run(keys.rotate(newest.id))


def test_revoking_is_final_and_happens_once(tmp_path):
    """A revoked key stays revoked since the first time; an unknown one is not found."""
    with keys_in(tmp_path) as (keys, clock):
        key = run(keys.issue(KeyRequest(application="a"))).key
        first = run(keys.revoke(key.id))
        clock.now_ms += 5
        again = run(keys.revoke(key.id))

        assert first.revoked_at_ms == again.revoked_at_ms == clock() - 5
        with pytest.raises(NotFound):
            run(keys.revoke("key_none"))


@pytest.mark.parametrize(
    "request_",
    [
        KeyRequest(application=""),
        KeyRequest(application="a", scopes=frozenset()),
        KeyRequest(application="a", scopes=frozenset({"operator"})),
        KeyRequest(application="a", expires_at_ms=1),
    ],
)
def test_senseless_keys_are_not_made(tmp_path, request_):
    """A key needs an application, a scope and a future."""
    with keys_in(tmp_path) as (keys, _):
        with pytest.raises(InvalidRequest):
            run(keys.issue(request_))
        assert run(keys.list()) == ()


def key(**fields):
    return VirtualKey(id="key_parent", digest=b"d", prefix="lga_", application="admin", **fields)


def test_an_administrator_stays_in_its_tenant(tmp_path):
    """Keys of other tenants are neither made, listed, rotated nor revoked; they are as unknown."""
    with keys_in(tmp_path) as (keys, _):
        foreign = run(keys.issue(KeyRequest(application="a", tenant="other"))).key
        scopes = frozenset({"admin", "inference", "usage:read"})
        admin = Authority(key=key(tenant="mine", scopes=scopes))

        assert run(keys.list(admin)) == ()
        for attempt in (keys.rotate(foreign.id, admin), keys.revoke(foreign.id, admin)):
            with pytest.raises(NotFound):
                run(attempt)
        with pytest.raises(NotAllowed):
            run(keys.issue(KeyRequest(application="a", tenant="other"), admin))
        with pytest.raises(NotAllowed):
            run(keys.list(admin, tenant="other"))
        operator = Authority(key=key(tenant="mine", scopes=scopes | {"operator"}))
        assert [each.id for each in run(keys.list(operator))] == [foreign.id]


def test_an_operator_s_key_is_out_of_a_tenant_s_reach(tmp_path):
    """One that administers a tenant neither revokes an operator's key of it nor gets one by rotating it."""
    with keys_in(tmp_path) as (keys, _):
        scopes = frozenset({"admin", "operator"})
        operators = run(keys.issue(KeyRequest(application="a", scopes=scopes))).key
        admin = Authority(key=key(scopes=frozenset({"admin"})))

        for attempt in (keys.rotate(operators.id, admin), keys.revoke(operators.id, admin)):
            with pytest.raises(NotAllowed):
                run(attempt)


def models_of(patterns, universe=("openai/gpt-4o", "openai/o1", "gpt-4o", "gpt-5", "x", "y")):
    """Return which of some models patterns allow; none at all allows every one."""
    return {
        name
        for name in universe
        if not patterns or any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in patterns)
    }


@pytest.fixture(scope="module")
def issuing(tmp_path_factory):
    with keys_in(tmp_path_factory.mktemp("keys")) as (keys, clock):
        yield keys, clock


@property_of(normal=150, most=5000)
@given(data=st.data())
def test_a_child_never_exceeds_its_parent(data, issuing):
    """Whatever is asked for, a key that is made can do nothing that the one who made it could not."""
    parent = key(
        tenant="t",
        user=data.draw(st.sampled_from([None, "ann"])),
        scopes=data.draw(SCOPES) | {"admin"},
        allowed_models=data.draw(MODELS),
        limits=Limits(values=data.draw(LIMITS)),
        expires_at_ms=data.draw(st.sampled_from([None, 1_900_000_000_000])),
    )
    request = KeyRequest(
        application="a",
        tenant=data.draw(st.sampled_from(["t", "u"])),
        user=data.draw(st.sampled_from([None, "ann", "bob"])),
        scopes=data.draw(SCOPES),
        allowed_models=data.draw(MODELS),
        limits=data.draw(LIMITS),
        expires_at_ms=data.draw(st.sampled_from([None, 1_850_000_000_000, 1_950_000_000_000])),
    )
    keys, clock = issuing
    before = f"key_{clock():012x}~"
    clock.now_ms += 1
    try:
        child = run(keys.issue(request, Authority(key=parent))).key
    except (NotAllowed, InvalidRequest):
        assert run(keys.list(after=before)) == ()
        return

    assert child.scopes <= parent.scopes
    assert child.tenant == "t" or "operator" in parent.scopes
    assert parent.user in {None, child.user}
    assert models_of(child.allowed_models) <= models_of(parent.allowed_models)
    for name, most in parent.limits.values.items():
        assert most is None or child.limits.values[name] <= most
    if parent.expires_at_ms is not None:
        assert child.expires_at_ms <= parent.expires_at_ms


def test_what_a_parent_may_grant_is_granted(tmp_path):
    """The property above does not hold by refusing everything."""
    scopes = frozenset({"admin", "inference"})
    admin = Authority(
        key=key(scopes=scopes, allowed_models=("openai/*",), limits=Limits(values={"text_calls": 9}))
    )
    asked = KeyRequest(
        application="a",
        scopes=frozenset({"inference"}),
        allowed_models=("openai/gpt-4o",),
        limits={"text_calls": 9},
    )
    with keys_in(tmp_path) as (keys, _):
        child = run(keys.issue(asked, admin)).key

    assert child.allowed_models == ("openai/gpt-4o",)
    assert child.limits.values == {"text_calls": 9}
