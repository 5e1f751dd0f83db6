"""Fine-tuning: what callers ask for, how it is billed before anybody has counted, and the models that come of it."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

from msgspec import Struct

from llm_gate.domain.catalog import Operation
from llm_gate.domain.operations import Count

Method = Literal["supervised", "dpo", "reinforcement"]
TuningState = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
"""How a job of this kind stands, in OpenAI's words."""

Steering = Literal["cancel", "pause", "resume"]

MOST_EPOCHS = 25
"""How often training data are gone through at most where the vendor decides."""

_USUAL_EPOCHS = 3
_FEW_EXAMPLES, _MANY_EXAMPLES = 100, 25_000
_BYTES_PER_TOKEN = 4


class TrainingFile(Struct, frozen=True, kw_only=True):
    """A file with its bytes, as a vendor gets it. `examples` is how many lines it has."""

    id: str
    name: str
    data: bytes
    examples: int

    def __repr__(self) -> str:
        return f"TrainingFile({self.id}, {len(self.data)} bytes)"


class FineTuneRequest(Struct, frozen=True, kw_only=True):
    """A wish for a model of one's own. Files are named by their ids here; `training` and `validation` are their bytes.

    `options` is what stands under the method's name, raw: hyperparameters, a grader.
    """

    operation: ClassVar[Operation] = "fine_tune"
    model: str
    training_file: str
    validation_file: str | None = None
    training: TrainingFile | None = None
    validation: TrainingFile | None = None
    fallbacks: tuple[str, ...] = ()
    suffix: str | None = None
    seed: int | None = None
    method: Method = "supervised"
    options: Mapping[str, Any] = {}
    metadata: Mapping[str, str] = {}
    n: int = 1
    user: str | None = None

    @property
    def hyperparameters(self) -> Mapping[str, Any]:
        """The hyperparameters of the method."""
        found = self.options.get("hyperparameters")
        return found if isinstance(found, Mapping) else {}


def epochs_of(hyperparameters: Mapping[str, Any], examples: int) -> Count:
    """Return how often the data are gone through: as said, or as vendors choose it by the number of examples."""
    said = hyperparameters.get("n_epochs")
    if isinstance(said, int) and said > 0:
        return Count(expected=said, most=said)
    likely = _USUAL_EPOCHS
    if examples * likely < _FEW_EXAMPLES:
        likely = min(MOST_EPOCHS, _FEW_EXAMPLES // max(1, examples))
    elif examples * likely > _MANY_EXAMPLES:
        likely = max(1, _MANY_EXAMPLES // examples)
    return Count(expected=likely, most=MOST_EPOCHS)


def trained_tokens(request: FineTuneRequest) -> Count:
    """Return how many tokens a prepared request will be billed for: likely, and never more than so many.

    No tokeniser makes more tokens than there are bytes; some vendors go through the validation data as well.
    """
    assert request.training is not None  # noqa: S101 - a prepared request holds its files
    epochs = epochs_of(request.hyperparameters, request.training.examples)
    size = len(request.training.data)
    tested = 0 if request.validation is None else len(request.validation.data)
    return Count(expected=-(-size // _BYTES_PER_TOKEN) * epochs.expected, most=(size + tested) * epochs.most)


class TuningEvent(Struct, frozen=True, kw_only=True):
    """Something that happened in training; `data` is JSON text."""

    id: str
    created_s: int
    level: Literal["info", "warn", "error"] = "info"
    message: str
    type: Literal["message", "metrics"] = "message"
    data: str | None = None


class TuningCheckpoint(Struct, frozen=True, kw_only=True):
    """A model as it was at one step of training; `metrics` is JSON text."""

    id: str
    created_s: int
    model: str
    step: int
    metrics: str = "{}"


class TunedModel(Struct, frozen=True, kw_only=True):
    """A model that came of training: whose it is, what it is called at its provider, and which job made it.

    `base` is the model that was trained, `deployment` the place where it is.
    """

    tenant: str
    provider: str
    name: str
    base: str
    job: str
    deployment: str
    made_ms: int


class TunedModels(Protocol):
    """Where tuned models are written down. Every method may raise StoreUnavailable."""

    async def add(self, model: TunedModel) -> TunedModel:
        """Write a model down, let every process know, and return what stands there: a name has one owner for good."""

    async def load_all(self) -> Sequence[TunedModel]:
        """Return every tuned model of every tenant."""
