"""From an operation as somebody plans it to the models that would do it, and what it may come to.

Who would do it is decided as for a call (`Directory.resolve`); what cannot be called here now is priced by the catalog.
What nobody says is assumed, so that a plan of one line has a price; the assumptions stand together below.
"""

from collections.abc import Iterable
from datetime import date
from math import ceil

from msgspec import structs

from llm_gate.domain.bounds import CostRange, price_range
from llm_gate.domain.catalog import Model, Operation
from llm_gate.domain.errors import InvalidRequest, NotFound, ProviderUnavailable
from llm_gate.domain.limits import BUCKET_OF
from llm_gate.domain.operations import Count, Draft, exactly, parse_size
from llm_gate.domain.plans import Plan
from llm_gate.domain.preflight import Asked, Estimate
from llm_gate.domain.text_rates import TextRates, text_rates
from llm_gate.engine.estimate import LIKELY_OUTPUT_TOKENS, LONGEST_OUTPUT_TOKENS
from llm_gate.engine.resolve import DEFAULT, Directory

PROMPT_TOKENS = Count(expected=256, most=4_096)
"""What goes in with a picture or a recording, the pictures that are edited included."""

CAPTION_TOKENS = Count(expected=0, most=1_024)
"""Text that comes out beside a picture."""

VIDEO_S = Count(expected=5, most=10)
"""How long a video is, in seconds."""

SPOKEN_TOKENS = Count(expected=2, most=5)
"""Tokens of speech for each character that is read out."""

HEARD_TOKENS = Count(expected=32, most=50)
"""Tokens of sound for each second of a recording."""

WRITTEN_TOKENS = Count(expected=4, most=10)
"""Tokens of text for each second of a recording."""

SEARCH_READ_TOKENS = Count(expected=1_024, most=65_536)
"""What goes in with a search that a model makes, its longest question included."""

SEARCH_WRITTEN_TOKENS = Count(expected=1_024, most=4_096)
"""What comes out of it."""

PICTURE = (1024, 1024)
"""Width and height of a picture that is billed by its area, in pixels."""

ROUNDING_NANOS = 4
"""What rounding the lines of a cost, one by one, can add to it at most."""

_TEXT: frozenset[Operation] = frozenset({"chat", "embedding"})


def estimate(asked: Asked, directory: Directory, plan: Plan, on: date) -> Estimate:
    """Return who would do an operation on a day, and what it may come to under a plan.

    Raises:
        InvalidRequest: it is not clear what is meant, something that its price needs is missing, or it asks for more
            output than the plan allows.
        NotFound: nobody in the catalog does it.
    """
    operation, models, is_configured = _who(asked, directory, on)
    _check(asked, operation, plan)
    drafts = [draft_of(asked, operation, model, plan) for model in models]
    priced = [_price(asked, model, draft, on) for model, draft in zip(models, drafts, strict=True)]
    ranges = [cost for cost, _ in priced]
    likely = [nanos for _, nanos in priced if nanos is not None]
    tokens = [_tokens(asked, draft) for draft in drafts]
    return Estimate(
        asked=asked,
        operation=operation,
        bucket=BUCKET_OF[operation],
        models=models,
        is_configured=is_configured,
        # Answers to one question are one call; pictures, videos and searches count one by one.
        count=1 if operation in _TEXT else asked.count,
        likely_tokens=max(count.expected for count in tokens),
        most_tokens=max(count.most for count in tokens),
        cost=_widest(ranges),
        likely_cost_nanos=max(likely) if len(likely) == len(models) else None,
    )


def _who(asked: Asked, directory: Directory, on: date) -> tuple[Operation, tuple[Model, ...], bool]:
    """Return what is to be done, the models that may do it, and whether that can be had here now."""
    operation = asked.operation or _operation(asked, directory)
    if asked.provider is None and asked.bucket is not None and asked.model is not None:
        # A word for a bucket leaves the provider open: the first that has the model will do.
        model = _catalogued(asked, directory, operation, on)
        return operation, (model,), directory.is_enabled(model.provider)
    name = (asked.model or DEFAULT) if asked.provider is None else f"{asked.provider}/{asked.model or ''}"
    try:
        targets = directory.resolve(name, operation, on, {})
    except (NotFound, ProviderUnavailable):
        return operation, (_catalogued(asked, directory, operation, on),), False
    if asked.usual_provider is not None and all(target.deployment.spec.synthetic for target in targets):
        # A word for one provider does not mean made-up answers, though these can be had.
        return operation, (_catalogued(asked, directory, operation, on),), False
    models = tuple({(target.provider, target.model.name): target.model for target in targets}.values())
    return operation, models, directory.is_enabled(models[0].provider)


def _operation(asked: Asked, directory: Directory) -> Operation:
    """Return what is meant where only a bucket or a provider is named: what the model does, or is there for."""
    wanted = [each for each, bucket in BUCKET_OF.items() if asked.bucket in {None, bucket}]
    known: Iterable[Operation] = ()
    if asked.model is not None:
        holders = [asked.provider] if asked.provider is not None else directory.preference()
        entries = [directory.catalog.providers[holder] for holder in holders]
        model = next((entry.models[asked.model] for entry in entries if asked.model in entry.models), None)
        known = () if model is None else model.operations
    if asked.provider is not None and not known:
        known = directory.catalog.providers[asked.provider].spec.defaults
    return next((each for each in known if each in wanted), wanted[0])


def _catalogued(asked: Asked, directory: Directory, operation: Operation, on: date) -> Model:
    """Return the model that the catalog has for an operation, whether or not it can be called."""
    provider, name = _split(asked, directory, operation)
    if name and provider is not None:
        return _suitable(directory.catalogued(provider, name, operation, on), operation)
    if name:
        for holder in directory.preference():
            if operation in _operations(directory, holder, name):
                return directory.catalogued(holder, name, operation, on)
        raise NotFound(f"model {name!r} is not known here", param="model", code="model_not_found")
    for holder in directory.preference() if provider is None else (provider,):
        default = directory.default_model(holder, operation)
        if default is not None:
            return directory.catalogued(holder, default, operation, on)
    raise NotFound(f"no default model for {operation} is known here: name one", param="model")


def _split(asked: Asked, directory: Directory, operation: Operation) -> tuple[str | None, str]:
    """Return the provider and the model that are named, also where the model's name holds both."""
    name = asked.model or ""
    if asked.provider is not None:
        return asked.provider, name
    if not name:
        return asked.usual_provider, name
    head, slash, rest = name.partition("/")
    named = directory.canonical(head) if slash and name not in _names(directory, operation) else None
    return (named, rest) if named is not None else (None, name)


def _names(directory: Directory, operation: Operation) -> set[str]:
    return {
        name
        for entry in directory.catalog.providers.values()
        for name, model in entry.models.items()
        if operation in model.operations
    }


def _operations(directory: Directory, provider: str, name: str) -> tuple[Operation, ...]:
    model = directory.catalog.providers[provider].models.get(name)
    return () if model is None else model.operations


def _suitable(model: Model, operation: Operation) -> Model:
    if model.listed and operation not in model.operations:
        raise InvalidRequest(
            f"model {model.provider}/{model.name} does {', '.join(model.operations)}, not {operation}",
            param="model",
            code="model_not_suitable",
        )
    return model


def _check(asked: Asked, operation: Operation, plan: Plan) -> None:
    allowed = plan.max_output_tokens
    if operation == "chat" and allowed is not None and (asked.max_tokens or 0) > allowed:
        raise InvalidRequest(
            f"max_tokens: {asked.max_tokens} is more than the plan {plan.label!r} allows ({allowed})",
            param="max_tokens",
        )
    needed: dict[Operation, tuple[str, object]] = {
        "embedding": ("input_tokens", asked.input_tokens if asked.total_tokens is None else 0),
        "chat": ("input_tokens", asked.input_tokens if asked.total_tokens is None else 0),
        "speech": ("characters", asked.characters),
        "transcription": ("duration", asked.duration_s),
        "fine_tune": ("input_tokens", _training_tokens(asked)),
    }
    name, value = needed.get(operation, ("", 0))
    if value is None:
        raise InvalidRequest(f"{name}: needed to say what {operation} costs", param=name)


def draft_of(asked: Asked, operation: Operation, model: Model, plan: Plan) -> Draft:
    """Describe an operation at a model, with what the model takes where nobody says, and what is assumed of it."""
    taken = _training_tokens(asked) if operation == "fine_tune" else asked.input_tokens
    by_area = any(price.unit == "megapixels" for price in model.prices)
    width, height = asked.size or (PICTURE if by_area else (None, None))
    asked = _with_defaults(asked, operation, model)
    draft = Draft(
        operation=operation,
        input_tokens=_said(taken),
        output_tokens=_output(asked, model, plan) if operation == "chat" else _said(asked.output_tokens),
        count=1 if operation in _TEXT else asked.count,
        width=width,
        height=height,
        quality=asked.quality,
        resolution=asked.resolution,
        duration_s=_said(asked.duration_s),
        characters=asked.characters,
        pages=asked.pages,
    )
    read, written = _assumed(asked, operation)
    stood_in = {price.instead_of for price in model.prices}
    if draft.input_tokens is None and "input_tokens" not in stood_in:
        draft = structs.replace(draft, input_tokens=read)
    if draft.output_tokens is None and "output_tokens" not in stood_in:
        draft = structs.replace(draft, output_tokens=written)
    if operation == "video" and draft.duration_s is None:
        draft = structs.replace(draft, duration_s=VIDEO_S)
    return _search_draft(draft, asked, model) if operation == "search" else draft


def _search_draft(draft: Draft, asked: Asked, model: Model) -> Draft:
    """Count a search in credits, where its depth ("advanced") takes several, and the pages that it reads."""
    spec = model.search
    each = spec.advanced_credits if spec is not None and asked.quality == "advanced" else 1
    pages = asked.pages
    if pages is None:
        # Beside a price of the request, pages are those that come on top of what it includes.
        pages = 0 if any(price.unit == "requests" for price in model.prices) else 1
    return structs.replace(draft, count=asked.count * each, pages=pages)


def _with_defaults(asked: Asked, operation: Operation, model: Model) -> Asked:
    """Fill in what `media_rules.fit` fills in: resolution and duration, as the model has them where nobody says."""
    spec = model.media
    if spec is None:
        return asked
    resolution = asked.resolution
    if resolution is None and (asked.size is None or "size" not in spec.takes):
        resolution = next(iter(spec.resolutions), None)
    if asked.resolution is None and asked.size is not None:
        named = (step for step, pixels in spec.pixels.items() if parse_size(pixels) == asked.size)
        resolution = next(named, resolution)
    duration_s = asked.duration_s
    if operation == "video" and duration_s is None:
        duration_s = next(iter(spec.durations_s), None)
    return structs.replace(asked, resolution=resolution, duration_s=duration_s)


def _assumed(asked: Asked, operation: Operation) -> tuple[Count | None, Count | None]:
    """Return the tokens that go in and come out of an operation, where its model bills them and nobody says."""
    match operation:
        case "image" | "image_edit" | "face_swap":
            return _times(PROMPT_TOKENS, asked.count), _times(CAPTION_TOKENS, asked.count)
        case "speech":
            characters = (asked.characters or 0) * asked.count
            # No tokeniser makes more tokens than bytes, of which a character has four at most.
            read = Count(expected=-(-characters // 4), most=characters * 4)
            return read, _times(SPOKEN_TOKENS, characters)
        case "transcription":
            seconds = (asked.duration_s or 0) * asked.count
            return _times(HEARD_TOKENS, seconds), _times(WRITTEN_TOKENS, seconds)
        case "search":
            return _times(SEARCH_READ_TOKENS, asked.count), _times(SEARCH_WRITTEN_TOKENS, asked.count)
        case _:
            return None, None


def _training_tokens(asked: Asked) -> int | None:
    return asked.total_tokens if asked.input_tokens is None else asked.input_tokens


def _said(number: int | None) -> Count | None:
    return None if number is None else exactly(number)


def _times(count: Count, factor: int) -> Count:
    return Count(expected=count.expected * factor, most=count.most * factor)


def _output(asked: Asked, model: Model, plan: Plan) -> Count:
    """Return how much comes out of a conversation: as a call is held at, where nobody says how much."""
    longest = plan.max_output_tokens or model.max_output_tokens or LONGEST_OUTPUT_TOKENS
    most = longest if asked.max_tokens is None else asked.max_tokens
    if asked.output_tokens is not None:
        most = asked.output_tokens if asked.max_tokens is None else max(most, asked.output_tokens)
        return _times(Count(expected=asked.output_tokens, most=most), asked.count)
    if asked.max_tokens is not None or plan.max_output_tokens is not None:
        return _times(exactly(most), asked.count)
    return _times(Count(expected=min(LIKELY_OUTPUT_TOKENS, most), most=most), asked.count)


def _tokens(asked: Asked, draft: Draft) -> Count:
    """Return what counts against limits of tokens: what a conversation or an embedding has, in and out."""
    if draft.operation not in _TEXT:
        return exactly(0)
    if asked.total_tokens is not None:
        return exactly(asked.total_tokens)
    sides = [count for count in (draft.input_tokens, draft.output_tokens) if count is not None]
    return Count(expected=sum(side.expected for side in sides), most=sum(side.most for side in sides))


def _price(asked: Asked, model: Model, draft: Draft, on: date) -> tuple[CostRange | None, int | None]:
    """Return what an operation may cost, and what it is held at where its bound need not hold."""
    if draft.operation in _TEXT and asked.total_tokens is not None:
        cost = _dearer_side(model, draft.operation, asked.total_tokens, on)
        return cost, None if cost is None else cost.max_nanos
    likely = price_range(model.prices, likely_draft(draft), on)
    return price_range(model.prices, draft, on), None if likely is None else likely.max_nanos


def likely_draft(draft: Draft) -> Draft:
    """Return the draft as it will probably be, so that the dearest price of that can be taken."""
    return structs.replace(
        draft,
        input_tokens=_expected(draft.input_tokens),
        output_tokens=_expected(draft.output_tokens),
        duration_s=_expected(draft.duration_s),
    )


def _expected(count: Count | None) -> Count | None:
    return None if count is None else exactly(count.expected)


def _dearer_side(model: Model, operation: Operation, tokens: int, on: date) -> CostRange | None:
    """Bound what tokens cost of which nobody knows how many go in: all of them may be of the dearer side."""
    if operation == "embedding":
        draft = Draft(operation=operation, input_tokens=exactly(tokens), output_tokens=exactly(0))
        return price_range(model.prices, draft, on)
    nothing, all_ = exactly(0), exactly(tokens)
    read = Draft(operation=operation, input_tokens=all_, output_tokens=nothing)
    written = Draft(operation=operation, input_tokens=nothing, output_tokens=all_)
    sides = [price_range(model.prices, draft, on) for draft in (read, written)]
    rates = text_rates(model.prices, on, reads_only=False)
    widest = _widest(sides)
    if widest is None or rates is None:
        return None
    most = max(_most(rates, tokens), widest.max_nanos)
    expected = max(side.expected_nanos for side in sides if side is not None)
    return structs.replace(widest, expected_nanos=expected, max_nanos=most)


def _most(rates: TextRates, tokens: int) -> int:
    """Return the most that tokens cost, however they divide: the more go in, the dearer may be what comes out."""
    reached = [tier for tier in rates.tiers if tier.above < tokens] or list(rates.tiers[:1])
    dearest = max(max(tier.input, tier.output) for tier in reached)
    most = ceil(dearest * tokens)
    return most if dearest.denominator == 1 else most + ROUNDING_NANOS


def _widest(ranges: Iterable[CostRange | None]) -> CostRange | None:
    """Return a range that holds for whichever of some runs; the first is the likely one. None if one is unknown."""
    known: list[CostRange] = []
    for each in ranges:
        if each is None:
            return None
        known.append(each)
    return CostRange(
        min_nanos=min(each.min_nanos for each in known),
        expected_nanos=known[0].expected_nanos,
        max_nanos=max(each.max_nanos for each in known),
        price_ids=tuple(dict.fromkeys(id_ for each in known for id_ in each.price_ids)),
    )
