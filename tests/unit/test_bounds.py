"""Promises of the estimator: bounds that hold for every usage, exact costs of media, unknown stays unknown."""

from datetime import date
from fractions import Fraction
from typing import get_args

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llm_gate.catalog.loader import load_catalog
from llm_gate.domain.bounds import CostRange, cost_of_media, price_range
from llm_gate.domain.catalog import Operation
from llm_gate.domain.limits import BUCKETS
from llm_gate.domain.money import parse_usd
from llm_gate.domain.operations import Count, Draft, bucket_of, exactly, parse_size
from llm_gate.domain.pricing import Price, PriceCondition, cost_of
from llm_gate.domain.usage import Usage

TODAY = date(2026, 11, 20)
CATALOG = load_catalog()
USD = 10**9

MODELS = sorted(
    {
        f"{entry.name}/{model.name}": model
        for entry in CATALOG.providers.values()
        for model in entry.models.values()
        if not model.is_retired(TODAY)
    }.items()
)
TEXT = {"chat", "embedding"}
MEDIA = [
    pytest.param(model, operation, id=f"{name}-{operation}")
    for name, model in MODELS
    for operation in model.operations
    if operation not in TEXT
]
PRICED_TEXT = [model for _, model in MODELS if model.prices and TEXT & set(model.operations)]

# What is said of a plain operation of each kind, as the contracts' defaults have it.
PLAIN = {
    "image": {"width": 1024, "height": 1024},
    "image_edit": {"width": 1024, "height": 1024},
    "video": {"duration_s": exactly(5)},
    "speech": {"characters": 500},
    "transcription": {"duration_s": Count(expected=60, most=90)},
    "fine_tune": {"input_tokens": exactly(100_000)},
    "search": {"pages": 1},
}
TOKENS = {"input_tokens": Count(expected=20, most=200), "output_tokens": Count(expected=50, most=16_384)}


def plain(operation, **said):
    tokens = TOKENS if operation in {"image", "image_edit", "speech"} else {}
    if operation == "transcription":
        tokens = {"output_tokens": TOKENS["output_tokens"]}
    return Draft(operation=operation, **{**tokens, **PLAIN.get(operation, {}), **said})


def prices_of(provider, name):
    return CATALOG.providers[provider].models[name].prices


def row(unit, usd, per=1, **more):
    condition = {key: more.pop(key) for key in list(more) if key in PriceCondition.__struct_fields__}
    minimum = more.pop("minimum", None)
    return Price(
        id=f"{unit}/{usd}/{per}/{condition}/{more.get('since')}",
        unit=unit,
        per=per,
        nanos=parse_usd(usd),
        minimum_nanos=None if minimum is None else parse_usd(minimum),
        condition=PriceCondition(**condition) if condition else None,
        **more,
    )


def usd(nanos):
    return None if nanos is None else Fraction(nanos, USD)


def cost(prices, on=TODAY, usage=None, **said):
    found = cost_of_media(prices, Draft(**said), on, usage)
    return None if found is None else usd(found.nanos)


def most(prices, on=TODAY, **said):
    found = price_range(prices, Draft(**said), on)
    return None if found is None else usd(found.max_nanos)


@pytest.mark.parametrize(("model", "operation"), MEDIA)
def test_every_media_model_is_priced(model, operation):
    """A plain draft of each media operation of each shipped model has a range, in order, of known prices."""
    said = plain(operation)
    if operation == "transcription" and not any(p.unit == "seconds" for p in model.prices):
        said = plain(operation, input_tokens=Count(expected=900, most=1350))
    if operation == "search" and any(p.unit == "input_tokens" for p in model.prices):
        said = plain(operation, input_tokens=exactly(900), output_tokens=exactly(300))

    found = price_range(model.prices, said, TODAY)

    assert found is not None
    least = 0 if model.provider == "sandbox" else 1
    assert least <= found.min_nanos <= found.expected_nanos <= found.max_nanos
    assert set(found.price_ids) <= {price.id for price in model.prices}
    assert found.price_ids


def test_every_operation_has_a_priced_model():
    """Each operation of the catalog can be priced somewhere, and counts against a bucket."""
    offered = {operation for _, model in MODELS if model.prices for operation in model.operations}

    assert offered == set(get_args(Operation))
    assert {bucket_of(operation) for operation in get_args(Operation)} == set(BUCKETS)
    assert bucket_of("face_swap") == bucket_of("image_edit") == "image_edit"
    assert bucket_of("speech") == "audio"


@pytest.mark.parametrize(
    ("provider", "name", "said", "dollars"),
    [
        ("stability", "stable-diffusion", {"operation": "image"}, "0.04"),
        ("stability", "stable-image-ultra", {"operation": "image", "count": 3}, "0.24"),
        ("wavespeed", "qwen-image", {"operation": "image"}, "0.03"),
        ("wavespeed", "ideogram-v3-turbo", {"operation": "image"}, "0.05"),
        ("wavespeed", "flux-kontext-pro", {"operation": "image_edit"}, "0.04"),
        ("wavespeed", "qwen-edit-plus", {"operation": "image_edit"}, "0.02"),
        ("wavespeed", "nano-banana-pro-edit-ultra", {"operation": "image_edit", "resolution": "8K"}, "0.18"),
        ("wavespeed", "akool-face-swap", {"operation": "face_swap"}, "0.16"),
        ("wavespeed", "image-face-swap-pro", {"operation": "face_swap", "count": 2}, "0.05"),
        ("wavespeed", "kling-v2.5-turbo-std-10s", {"operation": "video"}, "0.42"),
        ("huggingface", "tencent/HunyuanVideo", {"operation": "video"}, "0.1"),
        ("wavespeed", "minimax/speech-02-hd", {"operation": "speech", "characters": 10_000}, "0.5"),
        ("wavespeed", "minimax/voice-clone", {"operation": "speech", "characters": 10_000}, "0.5"),
        (
            "wavespeed",
            "alwrity-ai/qwen3-tts/voice-clone",
            {"operation": "speech", "characters": 100},
            "0.101",
        ),
        ("openai", "tts-1", {"operation": "speech", "characters": 1000}, "0.015"),
        ("openai", "whisper-1", {"operation": "transcription", "duration_s": exactly(60)}, "0.006"),
        ("tavily", "tavily-search", {"operation": "search"}, "0.001"),
        ("exa", "exa-search", {"operation": "search", "count": 4, "quality": "basic", "pages": 0}, "0.02"),
        ("gemini", "gemini-grounding-search", {"operation": "search"}, "0.035"),
        ("firecrawl", "firecrawl-extract", {"operation": "search", "pages": 7}, "0.014"),
        ("azure_openai", "dall-e-2", {"operation": "image", "width": 512, "height": 512}, "0.018"),
    ],
)
def test_the_documents_numbers(provider, name, said, dollars):
    """Finished operations cost what the tables say, and their bound is that cost."""
    assert cost(prices_of(provider, name), **said) == Fraction(dollars)
    assert most(prices_of(provider, name), **said) == Fraction(dollars)


@pytest.mark.parametrize(
    ("provider", "name", "resolution", "dollars"),
    [
        ("wavespeed", "hunyuan-video-1.5", "480p", "0.10"),
        ("wavespeed", "hunyuan-video-1.5", "720P", "0.20"),
        ("wavespeed", "hunyuan-video-1.5", None, "0.20"),
        ("wavespeed", "hunyuan-video-1.5", "1080p", None),
        ("wavespeed", "lightricks/ltx-2-pro", None, "0.30"),
        ("wavespeed", "ltx-2-pro", "1080p", "0.30"),
        ("wavespeed", "ltx-2-fast", "1080p", "0.20"),
        ("wavespeed", "wan-2.5", "480p", "0.25"),
        ("wavespeed", "wan-2.5", "720p", "0.50"),
        ("wavespeed", "alibaba/wan-2.5", "1080p", "0.75"),
        ("wavespeed", "wan-2.5", None, "0.75"),
        ("wavespeed", "veo3.1", "1080p", "0.60"),
        ("gemini", "veo-3.1-generate-preview", "720p", "2"),
        ("gemini", "veo-3.1-generate-preview", None, "3"),
    ],
)
def test_videos_are_priced_by_the_second_and_resolution(provider, name, resolution, dollars):
    """Five seconds cost the price of the resolution, the dearest if none is said, and unknown if it has none."""
    said = {"operation": "video", "duration_s": exactly(5), "resolution": resolution}

    assert most(prices_of(provider, name), **said) == (dollars and Fraction(dollars))


def test_an_open_resolution_is_a_range_and_no_cost():
    """What the draft leaves open goes from the cheapest to the dearest, the first price being the likely one."""
    prices = prices_of("wavespeed", "wan-2.5")
    draft = Draft(operation="video", duration_s=Count(expected=5, most=10))

    found = price_range(prices, draft, TODAY)

    assert found == CostRange(
        min_nanos=250_000_000,
        expected_nanos=500_000_000,
        max_nanos=1_500_000_000,
        price_ids=tuple(price.id for price in prices),
    )
    assert cost_of_media(prices, draft, TODAY) is None


@pytest.mark.parametrize(
    "name", ["wavespeed-ai/qwen3-tts/voice-clone", "wavespeed-ai/cosyvoice-tts/voice-clone"]
)
@pytest.mark.parametrize(
    ("characters", "count", "dollars"),
    [
        (0, 1, "0.005"),
        (99, 1, "0.005"),
        (100, 1, "0.005"),
        (101, 1, "0.00505"),
        (4000, 1, "0.2"),
        (1, 3, "0.015"),
        (250, 2, "0.025"),
    ],
)
def test_the_minimum_of_a_voice_clone(name, characters, count, dollars):
    """A clone costs half a cent per 100 characters, and each at least that."""
    said = {"operation": "speech", "characters": characters, "count": count}

    assert cost(prices_of("wavespeed", name), **said) == Fraction(dollars)
    assert most(prices_of("wavespeed", name), **said) == Fraction(dollars)


@pytest.mark.parametrize(
    ("size", "quality", "dollars"),
    [
        ((1024, 1024), "Standard", "0.04"),
        ((1024, 1024), "hd", "0.08"),
        ((1792, 1024), "standard", "0.08"),
        ((1792, 1024), "HD", "0.12"),
        ((1024, 1792), "HD", "0.12"),
        ((1024, 1024), None, "0.08"),
        (None, "standard", "0.08"),
        (None, None, "0.12"),
        ((512, 512), None, None),
    ],
)
def test_pictures_are_priced_by_size_and_quality(size, quality, dollars):
    """Sizes fit in either orientation, words in any case; what is open is bounded by the dearest that fits."""
    width, height = size or (None, None)
    said = {"operation": "image", "width": width, "height": height, "quality": quality, "count": 2}
    prices = prices_of("azure_openai", "dall-e-3")

    assert most(prices, **said) == (dollars and 2 * Fraction(dollars))
    assert cost(prices, **said) == (2 * Fraction(dollars) if dollars and size and quality else None)


def test_pictures_of_either_orientation_keep_their_own_price():
    """The written orientation goes before the turned one."""
    prices = (row("images", "1", width=1024, height=1536), row("images", "2", width=1536, height=1024))

    assert cost(prices, operation="image", width=1024, height=1536) == 1
    assert cost(prices, operation="image", width=1536, height=1024) == 2


def test_a_price_for_the_rest_gives_way_to_one_for_the_size():
    """A broad price counts only where no narrow one applies for certain."""
    prices = (
        row("images", "1", width=1024, height=1024, quality="low"),
        row("images", "2", width=1024, height=1024, quality="high"),
        row("images", "9", quality="high"),
        row("images", "5", quality="low"),
    )

    assert most(prices, operation="image", width=1024, height=1024) == 2
    assert most(prices, operation="image", width=1024, height=1024, quality="low") == 1
    assert most(prices, operation="image", width=2048, height=2048, quality="low") == 5
    assert most(prices, operation="image", quality="low") == 5
    assert most(prices, operation="image") == 9


@pytest.mark.parametrize(
    ("width", "height", "count", "dollars"),
    [(1000, 1000, 1, "0.025"), (1024, 768, 2, "0.05"), (1024, 1024, 1, "0.05"), (2000, 1500, 1, "0.075")],
)
def test_megapixels_are_rounded_up_for_each_picture(width, height, count, dollars):
    """A picture counts whole megapixels."""
    prices = prices_of("huggingface", "black-forest-labs/FLUX.1-Krea-dev")

    assert cost(prices, operation="image", width=width, height=height, count=count) == Fraction(dollars)
    assert cost(prices, operation="image") is None
    assert most(prices, operation="image") is None


@pytest.mark.parametrize(
    ("provider", "name", "said", "dollars"),
    [
        ("openai", "gpt-image-2", {"width": 1024, "height": 1024, "quality": "high"}, "0.21072"),
        ("openai", "gpt-image-2", {"width": 1536, "height": 1024, "quality": "high"}, "0.16464"),
        ("openai", "gpt-image-2.5-flare", {"width": 1024, "height": 1024, "quality": "high"}, "0.05268"),
        ("openai", "gpt-image-2.5-sunburst", {"width": 1024, "height": 1024, "quality": "max"}, "0.21072"),
        ("openai", "gpt-image-1-mini", {"width": 1024, "height": 1024, "quality": "medium"}, "0.011"),
        ("gemini", "gemini-3.1-flash-image", {"resolution": "1K"}, "0.0672"),
        ("gemini", "gemini-3-pro-image", {"resolution": "4K"}, "0.24"),
        ("gemini", "gemini-3-pro-image", {}, "0.24"),
    ],
)
def test_a_pictures_price_stands_in_for_its_tokens(provider, name, said, dollars):
    """Before the call a picture costs what its size does; afterwards the tokens that the vendor counted."""
    prices = prices_of(provider, name)
    draft = Draft(operation="image", input_tokens=exactly(0), output_tokens=exactly(0), **said)
    counted = Usage(output_tokens=10, image_output_tokens=10)
    (token,) = (price for price in prices if price.unit == "image_output_tokens")

    found = price_range(prices, draft, TODAY)

    assert found is not None
    assert usd(found.max_nanos) == Fraction(dollars)
    assert cost_of_media(prices, draft, TODAY, counted).nanos == 10 * token.nanos / token.per
    assert [line.price.unit for line in cost_of_media(prices, draft, TODAY, counted).lines] == [token.unit]


def test_the_seconds_of_a_recording_stand_in_for_its_tokens():
    """A minute of sound is 1,920 tokens; said tokens take the place of the seconds, and a later price its day."""
    prices = prices_of("gemini", "gemini-3.8-flash")
    minute = {"operation": "transcription", "duration_s": exactly(60), "output_tokens": exactly(0)}
    by_tokens = {**minute, "input_tokens": exactly(1920)}

    assert cost(prices, **minute) == cost(prices, **by_tokens) == Fraction("0.00144")
    assert cost(prices, on=date(2027, 1, 1), **minute) == Fraction("0.00288")
    assert most(prices, **minute) == most(prices, **by_tokens) == Fraction("0.00144")


def test_tuning_is_priced_by_its_training_tokens():
    """The tokens that go in are those of training, at the price of training."""
    prices = prices_of("openai", "gpt-4o-2024-08-06")

    assert cost(prices, operation="fine_tune", input_tokens=exactly(400_000)) == 10
    assert most(prices, operation="fine_tune", input_tokens=Count(expected=1, most=400_000)) == 10


@pytest.mark.parametrize(
    "said",
    [
        {"operation": "chat"},
        {"operation": "chat", "input_tokens": exactly(1)},
        {"operation": "chat", "output_tokens": exactly(1)},
        {"operation": "image", "input_tokens": exactly(1)},
        {"operation": "video", "resolution": "4k"},
        {"operation": "speech"},
        {"operation": "search"},
        {"operation": "fine_tune"},
    ],
)
def test_unknown_stays_unknown(said):
    """Without a price or a count that is needed there is no bound and no cost, rather than none to pay."""
    draft = Draft(**said)
    prices = {
        "chat": prices_of("openai", "gpt-6-luna"),
        "video": (row("seconds", "1"),),
        "speech": (row("characters", "1"),),
        "fine_tune": (row("training_tokens", "1"),),
    }.get(draft.operation, (row("input_tokens", "1"), row("output_tokens", "1")))

    assert price_range(prices, draft, TODAY) is None
    assert cost_of_media(prices, draft, TODAY) is None
    assert price_range((), draft, TODAY) is None
    assert cost_of_media((), draft, TODAY) is None


def test_a_price_before_its_day_is_unknown():
    """Bounds and costs hold to the day of the request, with the latest price that has begun."""
    prices = (row("images", "2", since=TODAY), row("images", "1", since=date(2026, 1, 1)))
    days = (date(2025, 12, 31), date(2026, 11, 19), TODAY)

    assert [cost(prices, on=day, operation="image") for day in days] == [None, 1, 2]
    assert [most(prices, on=day, operation="image") for day in days] == [None, 1, 2]


@pytest.mark.parametrize(("tokens", "dollars"), [(200_000, "0.25"), (200_001, "0.5000025")])
def test_a_tier_counts_as_soon_as_it_can_be_reached(tokens, dollars):
    """The bound takes the dearer tier when the most tokens reach it, also for what comes out."""
    prices = prices_of("gemini", "gemini-2.5-pro")
    said = {"operation": "chat", "input_tokens": Count(expected=1, most=tokens)}

    assert most(prices, **said, output_tokens=exactly(0)) == Fraction(dollars)
    assert most(prices, **said, output_tokens=exactly(1)) - Fraction(dollars) == (
        Fraction("0.00001") if tokens == 200_000 else Fraction("0.000015")
    )


def test_the_dearest_way_of_billing_bounds_what_goes_in():
    """Cache writes, sound and pictures may cost more than plain input; the expected cost is that of plain input."""
    prices = (
        row("input_tokens", "1"),
        row("cached_input_tokens", "0.1"),
        row("cache_write_tokens", "1.25"),
        row("audio_input_tokens", "40"),
        row("output_tokens", "2"),
        row("audio_output_tokens", "60"),
        row("image_output_tokens", "80"),
    )
    draft = Draft(operation="chat", input_tokens=Count(expected=10, most=20), output_tokens=exactly(1))

    found = price_range(prices, draft, TODAY)

    assert found is not None
    assert [usd(n) for n in (found.min_nanos, found.expected_nanos, found.max_nanos)] == [3, 12, 880]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1024x1024", (1024, 1024)),
        ("832*480", (832, 480)),
        ("1792X1024", (1792, 1024)),
        ("auto", None),
        ("0x5", None),
        ("1024", None),
        ("1024x1024 ", None),
        ("9999999x1", None),
    ],
)
def test_sizes_are_read(text, size):
    """A size is two numbers; anything else leaves it open."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "said",
    [
        {"count": 0},
        {"characters": -1},
        {"pages": -1},
        {"width": 1},
        {"height": 1},
        {"width": 0, "height": 1},
    ],
)
def test_a_draft_makes_sense(said):
    """Numbers that no operation can have are refused."""
    with pytest.raises(ValueError, match=r"."):
        Draft(operation="image", **said)


@pytest.mark.parametrize(("expected", "most"), [(-1, 1), (2, 1)])
def test_a_count_is_in_order(expected, most):
    """What is expected is never more than the most."""
    with pytest.raises(ValueError, match="is not between 0 and"):
        Count(expected=expected, most=most)


@st.composite
def counts(draw, top=2_000_000):
    most = draw(st.integers(0, top))
    return Count(expected=draw(st.integers(0, most)), most=most)


@st.composite
def usages(draw, read, written):
    """Return a usage within bounds, its parts as any vendor might report them."""
    taken = draw(st.integers(0, read))
    given = draw(st.integers(0, written))
    part = st.integers(0, taken)
    return Usage(
        input_tokens=taken,
        cached_input_tokens=draw(part),
        cache_write_tokens=draw(part),
        audio_input_tokens=draw(part),
        image_input_tokens=draw(part),
        output_tokens=given,
        audio_output_tokens=draw(st.integers(0, given)),
        image_output_tokens=draw(st.integers(0, given)),
    )


AMOUNT = st.decimals(0, 100, places=12, allow_nan=False).map(lambda amount: format(amount, "f"))


@st.composite
def token_prices(draw):
    """Return a price list that no vendor has: parts and tiers may be anything."""
    inputs = ("cached_input_tokens", "cache_write_tokens", "audio_input_tokens", "image_input_tokens")
    units = (*inputs, "audio_output_tokens", "image_output_tokens")
    wanted = ("input_tokens", "output_tokens", *draw(st.sets(st.sampled_from(units))))
    tiers = (None, *draw(st.sets(st.integers(0, 1000), max_size=2)))
    per = draw(st.sampled_from([1, 7, 1_000_000]))
    return [
        Price(
            id=f"{unit}/{above}",
            unit=unit,
            per=per,
            nanos=parse_usd(draw(AMOUNT)),
            condition=None if above is None else PriceCondition(above_input_tokens=above),
        )
        for unit in wanted
        for above in tiers
    ]


def holds(prices, operation, read, written, usage):
    found = price_range(prices, Draft(operation=operation, input_tokens=read, output_tokens=written), TODAY)
    billed = cost_of(prices, usage, TODAY)
    assert found is not None
    assert billed is not None
    assert {type(n) for n in (found.min_nanos, found.expected_nanos, found.max_nanos)} == {int}
    assert 0 <= found.min_nanos <= found.expected_nanos <= found.max_nanos
    assert billed.nanos <= found.max_nanos
    assert {line.price.id for line in billed.lines if line.nanos} <= set(found.price_ids)


def test_counted_units_are_rounded_outwards_too():
    """The least is rounded down, the most up, and what is expected to the nearest, once for each line."""
    draft = Draft(operation="speech", characters=4)

    found = price_range((row("characters", "0.0000000006"),), draft, TODAY)

    assert found is not None
    assert (found.min_nanos, found.expected_nanos, found.max_nanos) == (2, 2, 3)


@given(data=st.data(), model=st.sampled_from(PRICED_TEXT), read=counts(), written=counts())
def test_no_usage_of_a_shipped_model_costs_more_than_its_bound(data, model, read, written):
    """For every model of text: the range is in order, and no usage within the draft exceeds it."""
    operation = "chat" if "chat" in model.operations else "embedding"
    usage = data.draw(usages(read.most, written.most if operation == "chat" else 0))
    holds(model.prices, operation, read, written, usage)


@given(data=st.data(), prices=token_prices(), read=counts(2000), written=counts(2000))
def test_no_usage_of_any_prices_costs_more_than_its_bound(data, prices, read, written):
    """The same for prices of any fineness, where rounding the lines apart could exceed a bound rounded once."""
    holds(prices, "chat", read, written, data.draw(usages(read.most, written.most)))


def test_lines_that_are_rounded_apart_stay_within_the_bound():
    """Three lines of 0.6 nano-dollars are billed as three, and so the bound is not the two of their sum."""
    units = ("input_tokens", "cached_input_tokens", "audio_input_tokens")
    prices = [row(unit, "0.0000000006") for unit in units]
    usage = Usage(input_tokens=3, cached_input_tokens=1, audio_input_tokens=1)
    draft = Draft(operation="embedding", input_tokens=exactly(3))

    assert cost_of(prices, usage, TODAY).nanos == 3
    assert price_range(prices, draft, TODAY).max_nanos == 3


@st.composite
def finished_media(draw):
    """Return a shipped model's prices, a draft, and what it may have become: a full draft, and the vendor's usage."""
    model, operation = draw(st.sampled_from([param.values for param in MEDIA]))
    conditions = [price.condition for price in model.prices if price.condition is not None]
    units = {price.unit for price in model.prices}
    shape = {
        "size": draw(st.sampled_from([(c.width, c.height) for c in conditions if c.width] + [(2048, 2048)])),
        "quality": draw(st.sampled_from([c.quality for c in conditions] or [None])),
        "resolution": draw(st.sampled_from([c.resolution for c in conditions] or [None])),
    }
    hidden = {key for key in shape if draw(st.booleans()) and (key, units) != ("size", {"megapixels"})}
    same = {
        "operation": operation,
        "count": draw(st.integers(1, 5)),
        "characters": draw(st.integers(0, 5000)),
        "pages": draw(st.integers(0, 20)),
    }
    most = {key: draw(counts(5000)) for key in ("input_tokens", "output_tokens", "duration_s")}
    usage = None
    if "image_output_tokens" in units and draw(st.booleans()):
        most["image_output_tokens"] = draw(counts(50_000))
        images = draw(st.integers(1, max(1, most["image_output_tokens"].most)))
        usage = draw(usages(most["input_tokens"].most, 0))
        usage = msgspec.structs.replace(usage, output_tokens=images, image_output_tokens=images)
    made = {key: exactly(draw(st.integers(0, count.most))) for key, count in most.items()}

    def shaped(left_out):
        said = {key: value for key, value in shape.items() if key not in left_out}
        width, height = said.pop("size", (None, None))
        return {"width": width, "height": height, **said}

    before = Draft(**same, **most, **shaped(hidden))
    return model.prices, before, Draft(**same, **made, **shaped(set())), usage


@given(finished_media())
def test_no_finished_medium_costs_more_than_its_bound(case):
    """For every media model: whatever completes what the draft leaves open costs at most its bound."""
    prices, before, after, usage = case
    most_drawn = before.image_output_tokens.most if before.image_output_tokens else 0
    assume(usage is None or usage.image_output_tokens <= most_drawn)

    bound, paid = price_range(prices, before, TODAY), cost_of_media(prices, after, TODAY, usage)

    if paid is not None:
        assert bound is not None
        assert paid.nanos <= bound.max_nanos
    if bound is not None:
        assert 0 <= bound.min_nanos <= bound.expected_nanos <= bound.max_nanos
