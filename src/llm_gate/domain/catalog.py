"""Providers and models as data: what a catalog file may say, and the catalog made from it."""

from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal

from msgspec import Meta, Struct

from llm_gate.domain.counting import CountingSpec
from llm_gate.domain.policy import Sticky, Strategy
from llm_gate.domain.pricing import Price, PriceCondition, Unit

Operation = Literal[
    "chat",
    "embedding",
    "image",
    "image_edit",
    "face_swap",
    "video",
    "speech",
    "transcription",
    "search",
    "fine_tune",
]
Api = Literal["chat", "responses"]
Media = Literal["image", "audio", "video", "file"]
MediaInput = Literal[
    "size",
    "aspect_ratio",
    "resolution",
    "quality",
    "style",
    "background",
    "format",
    "negative_prompt",
    "guidance_scale",
    "steps",
    "seed",
    "mask",
    "face_index",
    "gender",
    "image",
    "audio",
    "duration_s",
    "prompt_expansion",
    "generate_audio",
    "voice",
    "speakers",
    "speed",
    "pitch",
    "volume",
    "emotion",
    "instructions",
    "language",
    "sample_rate",
    "prompt",
    "temperature",
    "timestamps",
]
"""What a request for media may say beside what it must: the fields of the requests, "size" for width and height."""
EditTask = Literal[
    "general_edit",
    "inpaint",
    "outpaint",
    "erase",
    "remove_background",
    "replace_background",
    "search_and_replace",
    "search_and_recolor",
]
"""What is to be done to a picture. The prompt says the rest, where there is one."""
SearchKind = Literal["web", "news", "images", "scholar", "contents", "answer"]
"""What is looked for: pages, news, pictures, papers; "contents" reads the addresses given, "answer" answers itself."""
SearchInput = Literal[
    "max_results",
    "include_domains",
    "exclude_domains",
    "start_date",
    "end_date",
    "time_range",
    "country",
    "language",
    "depth",
    "answer",
    "content",
]
"""What a search may say beside its query: the fields of the request, and whether answer or content are wanted."""
Ability = Literal["tools", "images", "audio", "video", "files", "json_object", "json_schema", "thinking"]


class PriceSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A price as written in a file: `usd` (decimal text) for `per` units, `minimum_usd` at least for one item.

    With `instead_of`, it stands in for that unit where nothing says how many of it there are.
    """

    unit: Unit
    usd: str
    per: int = 1
    minimum_usd: str | None = None
    instead_of: Unit | None = None
    condition: PriceCondition | None = None
    since: date | None = None
    source: str | None = None
    checked: date | None = None


class AuthSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a credential travels and which environment variables may hold it (first one set wins).

    kind "bearer" sends `Authorization: Bearer …`, "header" the named header, "none" nothing. With
    `optional`, the provider counts as configured without a credential.
    """

    kind: Literal["bearer", "header", "none"] = "bearer"
    header: str | None = None
    env: str | tuple[str, ...] = ()
    optional: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The environment variables, in order of precedence."""
        return (self.env,) if isinstance(self.env, str) else self.env


class RegionSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Environment variables of a provider that is reached at one address per region.

    `key` and `endpoint` hold `{region}` where the region's name stands, or name the region-less variable.
    """

    key: str
    endpoint: str


Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Wait = Annotated[float, Meta(gt=0, le=604_800)]


class DeadlineSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Deadlines of one provider or deployment, in seconds; what is not given is as `[timeouts]` has it."""

    connect_s: Wait | None = None
    headers_s: Wait | None = None
    first_event_s: Wait | None = None
    idle_s: Wait | None = None


class DeploymentSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One place of a provider as written in the operator's file, by its name.

    A name that is found without it, a region's or the provider's own ("default"), is told its share and limits here;
    any other name is a place of its own, whose key stands in the variable `env`. `models` are those it has (all, where
    none are named). `rpm` and `tpm` are requests and tokens in any 60 seconds.
    """

    env: str | None = None
    base_url: str | None = None
    region: str | None = None
    api_version: str | None = None
    models: tuple[str, ...] = ()
    weight: Count | None = None
    rpm: Count | None = None
    tpm: Count | None = None
    max_concurrent: Count | None = None
    max_waiting: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    timeouts: DeadlineSpec = DeadlineSpec()


class AliasTarget(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One target of an alias, `provider/model`, and its weight beside the others."""

    target: Annotated[str, Meta(min_length=1)]
    weight: Count = 1


class Alias(Struct, frozen=True, kw_only=True):
    """A public name for several targets. `sticky` sends the calls of one subject to the same of them."""

    targets: tuple[AliasTarget, ...]
    strategy: Strategy = "ordered"
    sticky: Sticky | None = None


class MediaSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model makes media of, and within which bounds; the first of a list is what it takes where nobody says.

    `takes` are the inputs it knows beside the prompt: any other is refused. Empty lists bound nothing. `sizes` are
    written "1024x1024", `max_side` is in pixels, `durations_s` in whole seconds. `nearest_ratio` lets a size that is
    asked for become the nearest of `aspect_ratios`. `pixels` gives the width and height that a resolution stands for.
    `paths` are the vendor's own, by task or by what comes with the prompt ("image"), where they are not `deployment`;
    `fields` go out as they are.
    """

    takes: tuple[MediaInput, ...] = ()
    sizes: tuple[str, ...] = ()
    max_side: Count | None = None
    aspect_ratios: tuple[str, ...] = ()
    nearest_ratio: bool = False
    resolutions: tuple[str, ...] = ()
    pixels: Mapping[str, str] = {}
    qualities: tuple[str, ...] = ()
    durations_s: tuple[Count, ...] = ()
    formats: tuple[str, ...] = ()
    voices: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()
    sample_rates: tuple[Count, ...] = ()
    tasks: tuple[EditTask, ...] = ()
    needs: tuple[Literal["image"], ...] = ()
    most_pictures: Count = 1
    most_inputs: Count = 1
    most_characters: Count | None = None
    most_seconds: Count | None = None
    paths: Mapping[str, str] = {}
    fields: Mapping[str, str | int | float | bool] = {}


class SearchSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a search product looks for, and which wishes it carries out for each kind; any other is refused.

    The bounds (`most_`) are those of one request. `countries` are the vendor's words for countries by their ISO 3166
    codes, where it does not take the codes themselves. A thorough search costs `advanced_credits`, one for more than
    `included_results` costs `wide_credits`; what is found beyond these counts as pages, where pages have a price.
    """

    kinds: Mapping[SearchKind, tuple[SearchInput, ...]]
    most_results: Count | None = None
    most_characters: Count | None = None
    most_included_domains: Count | None = None
    most_excluded_domains: Count | None = None
    most_urls: Count | None = None
    countries: Mapping[str, str] = {}
    included_results: Count | None = None
    advanced_credits: Count = 1
    wide_credits: Count = 1


TuningAbility = Literal["pause", "resume", "events", "checkpoints"]


class FineTuningSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a provider of the OpenAI dialect trains models, where it does otherwise than OpenAI itself.

    `files` and `jobs` are paths behind the provider's address. `fields` gives other names to what is sent ("" for what
    the vendor has no word for), `hyperparameters` to what stands among those; `fixed` goes out as it is, `upload` with
    each file. A `form` of "flat" puts hyperparameters into the body itself, "object" below `hyperparameters`.
    With `file_lists`, files are sent as lists; with `file_key`, training files as objects with this one field. `states`
    turns the vendor's words into ours; `model_field` and `tokens_field` name the model that came of it, and the tokens
    that are billed. `inline` is what the job itself holds. Names that begin with one of the `marks` are tuned
    models. Where it `needs_deployment`, a tuned model must be deployed at the vendor before it answers.
    """

    files: str = "files"
    upload: Mapping[str, str] = {}
    jobs: str = "fine_tuning/jobs"
    fields: Mapping[str, str] = {}
    form: Literal["method", "flat", "object"] = "method"
    hyperparameters: Mapping[str, str] = {}
    fixed: Mapping[str, str | int | float | bool] = {}
    methods: tuple[Literal["supervised", "dpo", "reinforcement"], ...] = ("supervised",)
    method_field: str | None = None
    method_words: Mapping[str, str] = {}
    file_lists: bool = False
    file_key: str | None = None
    states: Mapping[str, str] = {}
    model_field: str = "fine_tuned_model"
    tokens_field: str = "trained_tokens"
    abilities: tuple[TuningAbility, ...] = ()
    inline: tuple[Literal["events", "checkpoints"], ...] = ()
    longest_suffix: Count = 64
    marks: tuple[str, ...] = ()
    needs_deployment: bool = False


class ModelSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model as written in a file. `deployment` is the vendor-side name where it differs from `name`.

    `retired_on` with `replacement` sends requests for the name to another model of the same provider from
    that day on. `aliases` are other names of the same model. `api` is the provider's where it is not given.
    `media_tokens` says how many input tokens one medium of a kind counts at the very most. `tuned_prices` are those of
    models that were trained from it. `batches` says of this model what the provider's says of all. `media` is what a
    model that makes or reads media takes; without it, whatever is asked goes to the vendor. `search` is what one that
    searches takes; without it, nothing can be asked.
    """

    name: str
    label: str | None = None
    description: str | None = None
    operations: tuple[Operation, ...] = ("chat",)
    abilities: tuple[Ability, ...] = ()
    context_window: int | None = None
    max_output_tokens: int | None = None
    media_tokens: Mapping[Media, int] = {}
    media: MediaSpec | None = None
    search: SearchSpec | None = None
    training_data: str | None = None
    prices: tuple[PriceSpec, ...] = ()
    batches: bool | None = None
    tuned_prices: tuple[PriceSpec, ...] = ()
    aliases: tuple[str, ...] = ()
    retired_on: date | None = None
    replacement: str | None = None
    deployment: str | None = None
    region: str | None = None
    api: Api | None = None
    api_version: str | None = None


class ProviderSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A provider as written in a file; the operator's file may give any part of it.

    `dialect` names the wire format; `module` a file in providers/ where the vendor needs code of its own. A shipped
    provider without either is only catalogued: its models are priced, and none can be called.
    `rank` orders the providers that are tried when nobody names one (none: never). `finish_is_end` is for
    vendors known to send no end marker. `control_header` names an inbound header handed to this provider.
    `api` says which of the OpenAI dialect's two forms of chat is spoken ("chat" if nothing says otherwise).
    `reply_headers` maps headers of the vendor's answers to those of ours that show them. `defaults_env` names variables
    that replace a default. `synthetic` marks every answer as made up. `strategy` orders several places of the provider;
    `rpm`, `tpm`, `max_concurrent`, `max_waiting`, `weight` and `timeouts` are those of each place that `deployments`
    says nothing of. `fine_tuning` is there where models can be trained. `batches` says that
    batches are handed to the vendor where nobody says otherwise. `counting` is what is known of how tokens are counted.
    """

    label: str | None = None
    description: str | None = None
    aliases: tuple[str, ...] = ()
    dialect: str | None = None
    module: str | None = None
    base_url: str | None = None
    auth: AuthSpec = AuthSpec(kind="none")
    regions: tuple[RegionSpec, ...] = ()
    api: Api | None = None
    api_version: str | None = None
    api_version_env: str | None = None
    base_url_env: str | None = None
    rank: int | None = None
    defaults: Mapping[Operation, str] = {}
    defaults_env: Mapping[Operation, str] = {}
    finish_is_end: bool = False
    max_tokens_field: str | None = None
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = {}
    control_header: str | None = None
    reply_headers: Mapping[str, str] = {}
    synthetic: bool = False
    ca_file: str | None = None
    enabled: bool = True
    strategy: Strategy = "ordered"
    weight: Count = 1
    rpm: Count | None = None
    tpm: Count | None = None
    max_concurrent: Count | None = None
    max_waiting: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    timeouts: DeadlineSpec = DeadlineSpec()
    deployments: Mapping[str, DeploymentSpec] = {}
    fine_tuning: FineTuningSpec | None = None
    batches: bool = False
    counting: tuple[CountingSpec, ...] = ()
    models: tuple[ModelSpec, ...] = ()


class Model(Struct, frozen=True, kw_only=True):
    """One model of one provider. `listed` is False for a name that is passed through unknown.

    `place` is the key of the only deployment that has it, where there is but one. `batch_prices` are those that are
    others in a vendor's batch; `batches` tells whether its vendor takes it in batches, where that is known.
    """

    id: str
    provider: str
    name: str
    label: str
    description: str
    operations: tuple[Operation, ...]
    abilities: frozenset[Ability] = frozenset()
    context_window: int | None = None
    max_output_tokens: int | None = None
    media_tokens: Mapping[Media, int] = {}
    media: MediaSpec | None = None
    search: SearchSpec | None = None
    training_data: str | None = None
    prices: tuple[Price, ...] = ()
    batch_prices: tuple[Price, ...] = ()
    tuned_prices: tuple[Price, ...] = ()
    aliases: tuple[str, ...] = ()
    retired_on: date | None = None
    replacement: str | None = None
    batches: bool | None = None
    deployment: str | None = None
    place: str | None = None
    region: str | None = None
    api: Api | None = None
    api_version: str | None = None
    listed: bool = True

    def is_retired(self, on: date) -> bool:
        """Tell whether the vendor has switched the model off by a day."""
        return self.retired_on is not None and self.retired_on <= on


class ProviderEntry(Struct, frozen=True, kw_only=True):
    """One provider of the catalog with its models by name (aliases included)."""

    id: str
    name: str
    label: str
    description: str
    spec: ProviderSpec
    models: Mapping[str, Model]


class Catalog(Struct, frozen=True, kw_only=True):
    """Everything that can be named: providers by canonical name, their other names, and model aliases."""

    providers: Mapping[str, ProviderEntry]
    provider_aliases: Mapping[str, str]
    aliases: Mapping[str, Alias]
