"""May these operations be done, and what will they cost: cumulative, in one read, with bounds that hold."""

import asyncio
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_gate.bootstrap import load_directory
from llm_gate.dialects.subscription_preflight import decode_preflight, encode_preflight
from llm_gate.domain.access import CallContext, Caller
from llm_gate.domain.errors import InvalidRequest, NotFound, QuotaExceeded
from llm_gate.domain.ledger import Call, Granted, Refused, Reserve
from llm_gate.domain.limits import BUCKET_OF
from llm_gate.domain.plans import Limits, Plan, quotas_of, standing_of
from llm_gate.domain.preflight import Asked
from llm_gate.domain.pricing import cost_of
from llm_gate.domain.usage import Usage
from llm_gate.domain.windows import milliseconds
from llm_gate.engine.admission import Admission
from llm_gate.engine.drafts import estimate
from llm_gate.engine.holds import Holds
from llm_gate.engine.preflight import preflight
from llm_gate.engine.quotes import Quoting
from llm_gate.settings import load_settings
from llm_gate.storage.memory import MemoryLedger
from support.aliases import alias_of
from support.figures import property_of

NOW = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NOW_MS = milliseconds(NOW)
DIRECTORY = load_directory(load_settings({"GEMINI_API_KEY": "AIza-fake-0123456789"}))
NOBODY = load_directory(load_settings({}))
USD = 10**9
CALLER = Caller(user="u1")
CHEAP = {"provider": "gemini", "model": "gemini-2.5-flash"}


class Standings:
    """What binds everybody, as the operator's store would say it."""

    def __init__(self, plan, *others, lapsed=None, allowed=()):
        self.plans = (plan, *others)
        self.bound = standing_of(
            plan,
            quotas_of("user", "default", "u1", plan.limits, 0),
            anchor_ms=0,
            lapsed_at_ms=lapsed,
            allowed_models=allowed,
        )

    async def standing(self, caller):
        return self.bound


def plan(name="p", *, mode="balanced", price=0, most_output=None, **limits):
    return Plan(
        name=name,
        label=name,
        mode=mode,
        price_monthly_nanos=price,
        max_output_tokens=most_output,
        limits=Limits(values=limits),
    )


def look(asked, standings=None, *, ledger=None, directory=DIRECTORY, at=NOW):
    standings = standings or Standings(plan("unlimited"))

    async def work():
        return await preflight(
            asked,
            caller=CALLER,
            standings=standings,
            ledger=ledger or MemoryLedger(),
            directory=directory,
            at=at,
        )

    return asyncio.run(work())


def chat(tokens=1000, **more):
    return Asked(operation="chat", total_tokens=tokens, **{**CHEAP, **more})


def image(**more):
    return Asked(bucket="image", usual_provider="stability", **more)


def verdicts(found):
    return [line.is_allowed for line in found.lines]


def spend(ledger, standings, *, count=1, tokens=0, cost=0, bucket="text", provider="gemini"):
    """Hold something, as a call under way does."""
    holds = Holds(standings.bound).of(
        bucket=bucket,
        provider=provider,
        count=count,
        tokens=tokens,
        cost_nanos=cost,
        at_ms=NOW_MS,
    )
    call = Call(
        id="before",
        tenant="default",
        application="local",
        user="u1",
        key_id=None,
        request_id="r",
        operation="chat",
        bucket=bucket,
        endpoint="",
        made_ms=NOW_MS,
        owner="o",
        plan="p",
    )

    async def work():
        await ledger.submit(Reserve(call=call, holds=holds, intent=None, expires_ms=NOW_MS + 1000))

    asyncio.run(work())


def test_without_limits_everything_may_be_done_and_has_a_price():
    """A plan without limits allows all of it; the total is the sum of the lines."""
    found = look([chat(1000), image(), Asked(bucket="video", usual_provider="wavespeed")])

    assert (found.can_proceed, found.failed_index) == (True, None)
    assert found.cost is not None
    assert found.cost.max_nanos == sum(line.cost.max_nanos for line in found.lines)
    assert all(line.cost.price_ids for line in found.lines)


@pytest.mark.parametrize(
    ("limit", "asked"),
    [
        ("text_calls", chat()),
        ("image_calls", image()),
        ("image_edit_calls", Asked(bucket="image_edit", usual_provider="wavespeed")),
        ("video_calls", Asked(bucket="video", usual_provider="wavespeed")),
        ("audio_calls", Asked(bucket="audio", usual_provider="wavespeed", characters=10)),
        ("search_calls", Asked(provider="tavily")),
        ("tavily_calls", Asked(provider="tavily")),
        ("embedding_calls", Asked(operation="embedding", provider="gemini", input_tokens=3)),
        ("requests_per_minute", chat()),
    ],
)
def test_every_count_is_cumulative(limit, asked):
    """The third operation of a kind finds no room under a limit of two."""
    found = look([asked] * 3, Standings(plan(**{limit: 2})))

    assert verdicts(found) == [True, True, False]
    assert found.failed_index == 2
    binding = found.lines[2].binding
    assert (binding.hold.name, binding.planned, binding.remaining) == (limit, 2, 0)
    assert "2 planned before it" in found.lines[2].refusal.message


def test_tokens_of_a_provider_add_up():
    """Tokens are counted together at one provider, and not at others."""
    standings = Standings(plan(gemini_tokens=2500))
    other = Asked(operation="chat", provider="openai", model="gpt-4o-mini", total_tokens=9_000)

    assert verdicts(look([chat(1000), chat(1500), other, chat(1)], standings)) == [True, True, True, False]


def test_money_adds_up_with_what_is_used_and_held():
    """Costs count against the cap beside what is held already, to the nano-dollar."""
    standings = Standings(plan(monthly_cost_usd=10_000_000))
    each = look([chat(1000)]).lines[0].cost.max_nanos
    ledger = MemoryLedger()
    spend(ledger, standings, cost=10_000_000 - 2 * each)

    assert verdicts(look([chat(1000)] * 2, standings, ledger=ledger)) == [True, True]
    found = look([chat(1000)] * 2 + [chat(1)], standings, ledger=ledger)
    assert verdicts(found) == [True, True, False]
    assert found.lines[2].binding.held == 10_000_000 - 2 * each


def test_one_that_may_not_be_done_takes_no_room_from_those_after_it():
    """What is refused is not counted."""
    standings = Standings(plan(gemini_tokens=1000))

    assert verdicts(look([chat(600), chat(500), chat(400)], standings)) == [True, False, True]


def test_jobs_of_a_list_need_not_run_side_by_side():
    """A limit of jobs under way refuses where it is full, not because several are planned."""
    video = Asked(bucket="video", usual_provider="wavespeed")
    standings = Standings(plan(parallel_jobs=1))
    ledger = MemoryLedger()

    assert verdicts(look([video, video], standings, ledger=ledger)) == [True, True]
    spend(ledger, standings, bucket="video")
    assert verdicts(look([video, video], standings, ledger=ledger)) == [False, False]


def test_a_subscription_that_ran_out_allows_nothing():
    """Expiry is checked first, and is each operation's verdict."""
    found = look([chat(), image()], Standings(plan(text_calls=9), lapsed=NOW_MS))

    assert verdicts(found) == [False, False]
    assert all(line.refusal.facts.expired_at == NOW for line in found.lines)


def test_what_the_plan_does_not_include_is_refused_with_the_way_up():
    """A limit of zero is no room; a plan that has some is named."""
    found = look([chat()], Standings(plan(gemini_calls=0), plan("pro", price=9, gemini_calls=5)))

    assert isinstance(found.lines[0].refusal, QuotaExceeded)
    assert found.lines[0].refusal.facts.upgrade_to == "pro"


def test_models_that_are_not_allowed_are_refused():
    """Allowed models bind a plan of operations as they bind calls."""
    found = look([chat(), image()], Standings(plan(), allowed=(("gemini/gemini-2.5-*",),)))

    assert verdicts(found) == [True, False]


def test_a_model_without_a_price_is_refused_where_money_is_limited_and_nowhere_else():
    """Unknown is not free."""
    unknown = Asked(operation="chat", provider="gemini", model="gemini-of-tomorrow", total_tokens=10)
    free = look([unknown])

    assert (free.can_proceed, free.cost, free.lines[0].cost) == (True, None, None)
    found = look([unknown, chat(1)], Standings(plan(monthly_cost_usd=USD)))
    assert verdicts(found) == [False, True]
    assert found.lines[0].refusal.code == "price_unknown"


@pytest.mark.parametrize("directory", [DIRECTORY, NOBODY])
def test_what_is_not_configured_is_priced_all_the_same(directory):
    """A provider without a credential has a price; that it cannot be called is told beside it."""
    found = look(
        [chat(), Asked(provider="anthropic", operation="chat", total_tokens=10)], directory=directory
    )

    assert all(line.cost is not None for line in found.lines)
    assert [line.estimate.is_configured for line in found.lines] == [directory is DIRECTORY, False]


def test_tokens_that_are_not_split_cost_as_the_dearer_side():
    """Ten thousand tokens of which nobody knows how they divide are priced as output."""
    model = DIRECTORY.catalogued("openai", "gpt-4o", "chat", NOW.date())
    line = look([Asked(operation="chat", provider="openai", model="gpt-4o", total_tokens=10_000)]).lines[0]
    output = cost_of(model.prices, Usage(output_tokens=10_000), NOW.date()).nanos

    assert line.cost.expected_nanos == output
    assert line.cost.max_nanos >= output > line.cost.min_nanos > 0


def test_what_is_held_is_the_bound_in_strict_mode_and_what_is_likely_else():
    """The two modes ask for what the same call would hold."""
    asked = [Asked(operation="chat", input_tokens=100, **CHEAP)]
    amounts = {
        mode: look(asked, Standings(plan(mode=mode, gemini_tokens=10**9))).lines[0].rooms[0].hold.amount
        for mode in ("strict", "balanced")
    }

    assert amounts["balanced"] == 100 + 1024
    assert amounts["strict"] > 8000


def test_a_plan_bounds_the_output():
    """The plan's bound counts where nobody says how much may come out, and more is refused."""
    standings = Standings(plan(mode="strict", most_output=300, gemini_tokens=10**9))
    found = look([Asked(operation="chat", input_tokens=100, **CHEAP)], standings)

    assert found.lines[0].rooms[0].hold.amount == 400
    with pytest.raises(InvalidRequest, match=r"operations\[0\]: max_tokens"):
        look([Asked(operation="chat", input_tokens=1, max_tokens=301, **CHEAP)], standings)


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (Asked(operation="chat", **CHEAP), InvalidRequest),
        (Asked(operation="speech", provider="openai"), InvalidRequest),
        (Asked(operation="transcription", provider="openai"), InvalidRequest),
        (Asked(operation="video", provider="openai", model="gpt-4o"), InvalidRequest),
        (Asked(bucket="image", model="no-such-model"), NotFound),
        (Asked(operation="fine_tune", provider="tavily", input_tokens=3), NotFound),
    ],
)
def test_what_cannot_be_priced_for_lack_of_words_is_told(asked, error):
    """Missing sizes and models that do something else are faults of the question."""
    with pytest.raises(error, match=r"operations\[0\]") as refused:
        look([asked])
    assert refused.value.param.startswith("operations[0]")


def test_an_alias_costs_as_its_dearest_target_and_counts_at_its_first():
    """Every target may be the one that answers."""
    directory = load_directory(
        load_settings(
            {"GEMINI_API_KEY": "AIza-fake-0123456789", "OPENAI_API_KEY": "sk-fake-0123456789"},
        )
    )
    one, other = (
        look([Asked(operation="chat", provider=name, model=model, input_tokens=10, max_tokens=5)])
        .lines[0]
        .cost
        for name, model in (("gemini", "gemini-2.5-flash"), ("openai", "gpt-4o"))
    )
    catalog = msgspec.structs.replace(
        directory.catalog, aliases={"best": alias_of("gemini/gemini-2.5-flash", "openai/gpt-4o")}
    )
    directory.catalog = catalog
    line = look(
        [Asked(operation="chat", model="best", input_tokens=10, max_tokens=5)],
        Standings(plan(gemini_tokens=99, openai_tokens=1)),
        directory=directory,
    ).lines[0]

    assert line.cost.max_nanos == max(one.max_nanos, other.max_nanos)
    assert line.is_allowed


MODELS = sorted(
    (entry.name, model.name)
    for entry in DIRECTORY.catalog.providers.values()
    for model in {model.name: model for model in entry.models.values()}.values()
    if "chat" in model.operations and model.prices and not model.is_retired(NOW.date())
)
TOKENS = st.integers(0, 400_000)


@property_of(300, 20_000)
@given(place=st.sampled_from(MODELS), unsplit=st.booleans(), data=st.data())
def test_the_most_is_never_less_than_what_a_call_comes_to(place, unsplit, data):
    """Whatever a provider counts within the plan, it costs no more than preflight said."""
    provider, name = place
    read, written = data.draw(TOKENS), data.draw(TOKENS)
    asked = Asked(
        operation="chat",
        provider=provider,
        model=name,
        total_tokens=read + written if unsplit else None,
        input_tokens=None if unsplit else data.draw(st.integers(read, 500_000)),
        max_tokens=None if unsplit else data.draw(st.integers(written, 500_000)),
    )
    found = estimate(asked, DIRECTORY, plan(), NOW.date())
    cached = data.draw(st.integers(0, read))
    usage = Usage(
        input_tokens=read,
        cached_input_tokens=cached,
        cache_write_tokens=data.draw(st.integers(0, read - cached)),
        output_tokens=written,
        audio_output_tokens=data.draw(st.integers(0, written)),
    )
    cost = cost_of(found.model.prices, usage, NOW.date())
    assume(cost is not None)

    assert found.cost is not None
    assert cost.nanos <= found.cost.max_nanos
    assert found.cost.min_nanos <= found.cost.expected_nanos <= found.cost.max_nanos
    assert usage.total_tokens <= found.most_tokens


PLANNED = st.lists(
    st.one_of(
        st.builds(chat, st.integers(0, 3000)),
        st.builds(image, count=st.integers(1, 3)),
        st.just(Asked(provider="tavily")),
        st.builds(
            Asked, operation=st.just("chat"), provider=st.just("openai"), input_tokens=st.integers(0, 99)
        ),
    ),
    min_size=1,
    max_size=8,
)
SMALL = st.fixed_dictionaries(
    {},
    optional={
        "text_calls": st.integers(0, 4),
        "image_calls": st.integers(0, 6),
        "gemini_tokens": st.integers(0, 6000),
        "tavily_calls": st.integers(0, 2),
        "requests_per_minute": st.integers(1, 7),
        "tokens_per_day": st.integers(0, 9000),
        "monthly_cost_usd": st.integers(0, 200_000_000),
    },
)


@property_of(150, 5_000)
@given(asked=PLANNED, limits=SMALL, mode=st.sampled_from(["strict", "balanced"]))
def test_the_ledger_keeps_what_preflight_promises(asked, limits, mode):
    """Operations that may be done find room when they are, one after the other; those that may not do not."""
    standings = Standings(plan(mode=mode, **limits))
    ledger = MemoryLedger()
    found = look(asked, standings, ledger=ledger)

    async def work():
        for index, line in enumerate(found.lines):
            each, holds = line.estimate, Holds(standings.bound)
            if line.refusal is not None and line.binding is None:
                continue  # refused without counting
            wanted = holds.of(
                bucket=each.bucket,
                provider=each.model.provider,
                count=each.count,
                tokens=each.tokens(strict=mode == "strict"),
                cost_nanos=each.cost_nanos(strict=mode == "strict"),
                at_ms=NOW_MS,
            )
            call = Call(
                id=f"c{index}",
                tenant="default",
                application="local",
                user="u1",
                key_id=None,
                request_id="r",
                operation=each.operation,
                bucket=each.bucket,
                endpoint="",
                made_ms=NOW_MS,
                owner="o",
                plan="p",
                count=each.count,
            )
            result = await ledger.submit(Reserve(call=call, holds=wanted, intent=None))
            assert isinstance(result, Granted) == line.is_allowed
            if isinstance(result, Refused):
                assert line.binding.hold.name in {short.hold.name for short in result.shortages}

    asyncio.run(work())


MEDIA = sorted(
    {
        (entry.name, model.name, operation)
        for entry in DIRECTORY.catalog.providers.values()
        for model in entry.models.values()
        for operation in model.operations
        if operation not in {"chat", "embedding"} and not model.is_retired(NOW.date())
    }
)


@pytest.mark.parametrize(("provider", "name", "operation"), MEDIA)
def test_every_media_model_of_the_catalog_has_a_price_beforehand(provider, name, operation):
    """A plan that says the least it must has a range, in order, above nothing."""
    needed = {
        "speech": {"characters": 300},
        "transcription": {"duration_s": 60},
        "fine_tune": {"input_tokens": 1000},
    }
    asked = Asked(operation=operation, provider=provider, model=name, **needed.get(operation, {}))
    found = estimate(asked, NOBODY, plan(), NOW.date())

    least = 0 if provider == "sandbox" else 1
    assert found.cost is not None
    assert least <= found.cost.min_nanos <= found.cost.expected_nanos <= found.cost.max_nanos
    assert least <= found.likely_cost_nanos <= found.cost.max_nanos
    assert found.bucket == BUCKET_OF[operation]


def wire(operations, standings=None, directory=DIRECTORY, ledger=None):
    """Ask as the subscription API does, and read its answer."""
    raw = msgspec.json.encode({"operations": operations})
    body, asked = decode_preflight(raw, directory)
    found = look(asked, standings, directory=directory, ledger=ledger)
    return msgspec.json.decode(encode_preflight(body, found))["data"]


@pytest.mark.parametrize(
    ("provider", "model", "bucket"),
    [
        ("Gemini", "gemini/gemini-3.8-flash", "text"),
        ("mistral", "huggingface/openai/gpt-oss-120b:groq", "text"),
        ("HuggingFace", "huggingface/openai/gpt-oss-120b:groq", "text"),
        ("stability", "stability/stable-image-core", "image"),
        ("image_edit", "wavespeed/qwen-edit-plus", "image_edit"),
        ("video", "wavespeed/hunyuan-video-1.5", "video"),
        ("fal-ai", "huggingface/tencent/HunyuanVideo", "video"),
        ("fal", "huggingface/tencent/HunyuanVideo", "video"),
        ("audio", "wavespeed/minimax/speech-02-hd", "audio"),
        ("tavily", "tavily/tavily-search", "search"),
        ("exa", "exa/exa-search", "search"),
    ],
)
def test_words_of_the_subscription_api(provider, model, bucket):
    """Each documented word in a provider's place leads to a model and a bucket, in any case of letters."""
    data = wire([{"provider": provider, "operation_type": "x", "tokens_requested": 10}], directory=NOBODY)

    line = data["operations"][0]
    assert (line["model"], line["bucket"], line["allowed"]) == (model, bucket, True)
    assert line["cost"] is not None


def test_a_bucket_finds_a_model_at_whoever_has_it():
    """A model under a bucket's word may belong to any provider of that bucket."""
    data = wire(
        [
            {"provider": "video", "operation_type": "v", "model": "tencent/HunyuanVideo"},
            {"provider": "stability", "operation_type": "i", "model": "qwen-image", "count": 2},
        ]
    )

    assert [line["model"] for line in data["operations"]] == [
        "huggingface/tencent/HunyuanVideo",
        "wavespeed/qwen-image",
    ]
    assert [line["cost"] for line in data["operations"]] == [0.1, 0.06]
    assert data["total_cost"] == data["estimated_cost"] == 0.16


def test_the_documented_answer():
    """The answer has the documented fields, with the corrections: per operation, cumulative, null for unlimited."""
    standings = Standings(plan(image_calls=1, monthly_cost_usd=2 * USD))
    operation = {"provider": "stability", "operation_type": "image_generation", "model": "stable-diffusion"}
    data = wire(
        [
            operation,
            {**operation, "actual_provider_name": "WaveSpeed"},
            {**operation, "provider": "gemini"} | {"model": "gemini-2.5-flash", "tokens_requested": 1000},
        ],
        standings,
    )

    assert data["can_proceed"] is False
    assert data["failed_operation_index"] == 1
    assert data["cached"] is False
    first, second, third = data["operations"]
    assert (first["allowed"], first["message"], first["cost"]) == (True, None, 0.04)
    assert first["limit_info"]["current_usage"] == 0
    assert (first["limit_info"]["limit"], first["limit_info"]["remaining"]) == (1, 1)
    assert (second["provider"], second["allowed"]) == ("WaveSpeed", False)
    assert second["limit_info"]["limit_type"] == "stability_calls"
    assert "image_calls of plan 'p' leaves no room" in second["message"]
    assert third["allowed"]
    assert data["usage_summary"]["image"] == {
        "current_calls": 0,
        "limit": 1,
        "remaining": 1,
        "projected_calls": 1,
    }
    assert data["usage_summary"]["text"]["limit"] is None
    cost = data["usage_summary"]["cost"]
    assert (cost["limit"], cost["current_cost"], cost["remaining"]) == (2, 0, 2)
    assert cost["projected_cost"] > 0.04
    assert data["estimated_cost"] == round(data["estimated_cost_nanos"] / 1e9, 4)


def test_unlimited_is_null():
    """No infinity, and no invented number."""
    data = wire([{"provider": "gemini", "operation_type": "llm_call", "tokens_requested": 5}])

    info = data["operations"][0]["limit_info"]
    assert (info["limit"], info["remaining"]) == (None, None)
    assert data["usage_summary"]["text"]["remaining"] is None
    assert data["usage_summary"]["cost"]["limit"] is None


def test_split_tokens_are_priced_each_at_its_side():
    """With input and output told apart, each has its own price."""
    data = wire(
        [
            {
                "provider": "openai",
                "model": "gpt-4o",
                "operation_type": "llm_call",
                "tokens_input": 1000,
                "tokens_output": 1000,
            }
        ]
    )

    model = DIRECTORY.catalogued("openai", "gpt-4o", "chat", NOW.date())
    cost = cost_of(model.prices, Usage(input_tokens=1000, output_tokens=1000), NOW.date())
    assert data["operations"][0]["cost_nanos"] == cost.nanos


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"operations": []}, "operations"),
        ({}, "operations"),
        ({"operations": [{"provider": "nobody", "operation_type": "x"}]}, "operations[0].provider"),
        ({"operations": [{"operation_type": "x"}]}, "operations[0].provider"),
        ({"operations": [{"provider": "gemini"}]}, "operations[0].operation_type"),
        (
            {"operations": [{"provider": "gemini", "operation_type": "x", "tokens_requested": -1}]},
            "operations[0].tokens_requested",
        ),
        (
            {"operations": [{"provider": "gemini", "operation_type": "x", "size": "large"}]},
            "operations[0].size",
        ),
        (
            {"operations": [{"provider": "gemini", "operation_type": "x", "width": 3}]},
            "operations[0]",
        ),
    ],
)
def test_faulty_questions_are_refused(body, param):
    """What is wrong is named by its place."""
    with pytest.raises(InvalidRequest) as refused:
        decode_preflight(msgspec.json.encode(body), DIRECTORY)
    assert refused.value.param == param


class Kept:
    """Reads quotes from the ledger in memory."""

    def __init__(self, ledger):
        self.ledger = ledger

    async def quote(self, id):  # noqa: A002 - the port has it
        return self.ledger._book.reservations.get(id)


def quoting(standings, ledger, now_ms=lambda: NOW_MS):
    ids = iter(range(100))
    admission = Admission(
        ledger=ledger, plans=standings, owner="o", new_id=lambda: f"q{next(ids)}", now_ms=now_ms
    )
    return Quoting(standings=standings, admission=admission, quotes=Kept(ledger))


def context(**more):
    return CallContext(request_id="r", caller=Caller(user="u1"), received_at=NOW, headers={}, **more)


def test_a_quote_holds_long_windows_until_it_is_released():
    """Amounts are held over the list, without minutes and jobs; another quote finds what is left."""
    standings = Standings(plan(text_calls=3, requests_per_minute=3, monthly_cost_usd=USD, parallel_jobs=1))
    ledger = MemoryLedger()

    async def work():
        book = quoting(standings, ledger)
        found = await book.look([chat(), chat()], CALLER, DIRECTORY, NOW)
        held = await book.hold(found, context(), expires_in_s=60)
        assert {hold.name: hold.amount for hold in held.holds} == {
            "text_calls": 2,
            "monthly_cost_usd": found.cost.max_nanos,
        }
        again = await book.look([chat(), chat()], CALLER, DIRECTORY, NOW)
        assert verdicts(again) == [True, False]
        assert (await book.show(held.id, CALLER)).holds == held.holds
        for stranger in (Caller(user="u2"), Caller(tenant="t2", user="u1")):
            with pytest.raises(NotFound) as foreign:
                await book.show(held.id, stranger)
            with pytest.raises(NotFound) as unknown:
                await book.release("q99", stranger)
            assert foreign.value.message.replace(held.id, "q99") == unknown.value.message
        await book.release(held.id, CALLER)
        assert (await book.look([chat(), chat()], CALLER, DIRECTORY, NOW)).can_proceed
        with pytest.raises(NotFound):
            await book.show(held.id, CALLER)

    asyncio.run(work())


def test_a_quote_that_came_too_late_is_refused_and_holds_nothing():
    """Between looking and holding another may have been faster."""
    standings = Standings(plan(text_calls=3))
    ledger = MemoryLedger()

    async def work():
        book = quoting(standings, ledger)
        first = await book.look([chat(), chat()], CALLER, DIRECTORY, NOW)
        second = await book.look([chat(), chat()], CALLER, DIRECTORY, NOW)
        await book.hold(first, context(), expires_in_s=60)
        with pytest.raises(QuotaExceeded, match="text_calls"):
            await book.hold(second, context(), expires_in_s=60)

    asyncio.run(work())


def test_a_quote_past_its_end_is_gone():
    """Nobody sees or releases a quote that has expired."""
    standings = Standings(plan(text_calls=3))
    now = [NOW_MS]

    async def work():
        book = quoting(standings, MemoryLedger(), lambda: now[0])
        held = await book.hold(await book.look([chat()], CALLER, DIRECTORY, NOW), context(), expires_in_s=60)
        now[0] += 60_000
        with pytest.raises(NotFound):
            await book.release(held.id, CALLER)

    asyncio.run(work())
