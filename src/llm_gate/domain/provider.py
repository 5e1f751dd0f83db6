"""How a provider is spoken to: HTTP as values, places to call, and the codecs a provider is made of.

Codecs do no I/O. They build an HttpRequest without credentials (transport adds them) and read an HttpReply.

Media take several exchanges now and then: a look-up before the call, an upload, a queue, a download. So their codecs
are generators: they yield a Send, Fetch or Wait, are sent the HttpReply (None after a Wait), and return the result.
The engine drives them, marks and bounds what they send, and raises the vendor's failures.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

from msgspec import Struct

from llm_gate.domain.catalog import Api, Model, Operation, ProviderSpec
from llm_gate.domain.errors import ProviderError
from llm_gate.domain.events import ChatEvent
from llm_gate.domain.fine_tuning import FineTuneRequest, Steering, TuningCheckpoint, TuningEvent
from llm_gate.domain.media import MediaResult, Medium, SpeechRequest, VideoRequest
from llm_gate.domain.policy import CapacityLimits, Deadlines
from llm_gate.domain.requests import ChatRequest, EmbeddingRequest
from llm_gate.domain.results import ChatResult, EmbeddingResult
from llm_gate.domain.secret import Secret
from llm_gate.domain.usage import Usage

T = TypeVar("T")


class HttpRequest(Struct, frozen=True, kw_only=True):
    """A request to a provider, without its credential."""

    method: str
    url: str
    body: bytes
    headers: Mapping[str, str] = {}


class HttpReply(Struct, frozen=True, kw_only=True):
    """A provider's complete answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Auth(Struct, frozen=True, kw_only=True):
    """The credential of a deployment and the way it travels."""

    kind: Literal["bearer", "header", "none"]
    header: str | None = None
    secret: Secret | None = None


class Deployment(Struct, frozen=True, kw_only=True):
    """One concrete place to call: provider, region, address, credential.

    `base_url` has no trailing slash. `verify_tls` is False only for loopback and private addresses. `name` is what
    people call it; `key` tells it from any other place, address or credential, and gives neither away. `models` are
    those it has, all where none are named.
    """

    provider: str
    base_url: str
    auth: Auth
    spec: ProviderSpec
    codecs: "Provider"
    region: str | None = None
    api_version: str | None = None
    verify_tls: bool = True
    ca_file: str | None = None
    name: str = ""
    key: str = ""
    weight: int = 1
    models: tuple[str, ...] = ()
    capacity: CapacityLimits = CapacityLimits()
    deadlines: Deadlines = Deadlines()


class Target(Struct, frozen=True, kw_only=True):
    """A deployment and the model chosen for an attempt. `control` is the provider's own inbound header."""

    deployment: Deployment
    model: Model
    control: str | None = None

    @property
    def provider(self) -> str:
        """The provider's canonical name."""
        return self.deployment.provider

    @property
    def wire_model(self) -> str:
        """The model's name at the vendor."""
        return self.model.deployment or self.model.name

    @property
    def name(self) -> str:
        """`provider/model`."""
        return f"{self.deployment.provider}/{self.model.name}"


class Encoded(Struct, frozen=True, kw_only=True):
    """A request ready to be sent, and the hints that could not be carried over (wire names)."""

    request: HttpRequest
    dropped: tuple[str, ...] = ()


class ChatStream(Protocol):
    """Turns the bytes of one streamed answer into events; fed in any portions."""

    def feed(self, data: bytes) -> Sequence[ChatEvent]:
        """Take the next bytes and return the events they complete.

        Raises:
            ProviderError: the stream carries an error or breaks its contract; `preceding` holds the events
                of these bytes that came before.
        """

    def close(self) -> Sequence[ChatEvent]:
        """Take the end of the bytes.

        Raises:
            BadProviderResponse: the protocol's terminal event was not seen.
        """


class ChatCodec(Protocol):
    """One vendor's chat operation, outbound."""

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request.

        Raises:
            InvalidRequest: it asks for something that cannot be carried over to this vendor.
        """

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:
        """Read a successful reply (status below 300).

        Raises:
            ProviderError: it is not what the contract says, or carries an error after all.
        """

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Return a decoder for one streamed answer."""


class CountCodec(Protocol):
    """One vendor's way to say how many input tokens a chat has, without answering it."""

    def encode(self, request: ChatRequest, target: Target) -> HttpRequest:
        """Build the request; raises what `ChatCodec.encode` raises."""

    def decode(self, reply: HttpReply, target: Target) -> int:
        """Read a successful reply.

        Raises:
            ProviderError: it is not what the contract says.
        """


class EmbeddingCodec(Protocol):
    """One vendor's embedding operation, outbound."""

    def encode(self, request: EmbeddingRequest, target: Target) -> Encoded:
        """Build the request."""

    def decode(self, reply: HttpReply, request: EmbeddingRequest, target: Target) -> EmbeddingResult:
        """Read a successful reply."""


class Send(Struct, frozen=True, kw_only=True):
    """Send a request to the provider. `is_paid` marks the one that a vendor bills: it is never sent twice blindly.

    A reply with a status of 300 or above is raised as the vendor's error, but where the codec wants to read it itself
    (`reads_failures`). What stays true for a while, such as where a model is served, is not asked again for `keep_s`.
    """

    request: HttpRequest
    is_paid: bool = False
    reads_failures: bool = False
    keep_s: float = 0.0


class Fetch(Struct, frozen=True, kw_only=True):
    """Fetch what a vendor made from the address it names, without a credential and under the guards of the fetcher."""

    url: str


class Wait(Struct, frozen=True, kw_only=True):
    """Wait before the next look."""

    seconds: float


Do = Send | Fetch | Wait
Exchanges = Generator[Do, HttpReply | None, T]
"""The exchanges of one operation, and what comes of them."""


class Facts(Struct, frozen=True, kw_only=True):
    """What a codec cannot know by itself: the time (seconds since 1970) and a word nobody else has (32 hex digits)."""

    now_s: float
    token: str


class MediaCodec(Protocol):
    """One vendor's way to make pictures, edits, face swaps, speech or transcripts: what is answered in one go."""

    def run(self, request: Any, target: Target, facts: Facts) -> Exchanges[MediaResult]:
        """Make it; the request is one of the operation that the codec stands for, its media are all bytes.

        Raises:
            InvalidRequest: it asks for something this vendor cannot do.
            ProviderError: an answer is not what the contract says, or tells of a failure.
        """


class Ticket(Struct, frozen=True, kw_only=True):
    """What a vendor gave for a job that it accepted: its id, and what else is needed to ask for it again."""

    id: str
    data: Mapping[str, str] = {}


class JobView(Struct, frozen=True, kw_only=True):
    """How a vendor says a job stands. `progress` is a percentage where it tells.

    `error` is why it failed. `usage` and `units` are what the vendor says it billed, where it does. `data` is what
    `collect` needs, such as the addresses of what was made. `results` is what callers are shown of it beside.
    """

    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: float | None = None
    error: ProviderError | None = None
    usage: Usage | None = None
    units: Mapping[str, int] = {}
    data: Mapping[str, str] = {}
    results: Mapping[str, str] = {}


class JobCodec(Protocol):
    """One vendor's way to do slow work: hand it in, look how it stands, fetch what came of it, call it off.

    Every method may be called in another process than the one before, with nothing but the ticket.
    """

    look_every_s: float
    """How long to wait between two looks."""

    def submit(self, request: VideoRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:
        """Hand the job in; raises what `MediaCodec.run` raises."""

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:
        """Ask how it stands."""

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Medium]:
        """Fetch what came of it."""

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[bool] | None:
        """Call it off, and tell whether the vendor took notice; None where it offers no way."""


class Trained(Struct, frozen=True, kw_only=True):
    """What came of training: files that tell of it, and the names of the models, the last one first."""

    files: tuple[Medium, ...] = ()
    models: tuple[str, ...] = ()


class Steered(Struct, frozen=True, kw_only=True):
    """A job that was told to do something: the ticket to ask with from now on, and how it stands."""

    ticket: Ticket
    view: JobView


class TuningCodec(Protocol):
    """One vendor's way to train models. As of any job, every method may be called in another process.

    The files go to the vendor when a job is handed in; `tidy` takes them away again when it has ended.
    """

    look_every_s: float
    longest_s: float

    def submit(self, request: FineTuneRequest, target: Target, facts: Facts) -> Exchanges[Ticket]:
        """Hand the files and the job in."""

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[JobView]:
        """Ask how it stands."""

    def collect(self, ticket: Ticket, view: JobView, target: Target, facts: Facts) -> Exchanges[Trained]:
        """Fetch what came of it."""

    def steer(self, ticket: Ticket, way: Steering, target: Target, facts: Facts) -> Exchanges[Steered]:
        """Tell it to stop, to pause or to go on.

        Raises:
            InvalidRequest: the vendor has no such thing.
            ProviderError: it refuses.
        """

    def events(self, ticket: Ticket, target: Target) -> Exchanges[Sequence[TuningEvent]]:
        """Ask what has happened, the newest first."""

    def checkpoints(self, ticket: Ticket, target: Target) -> Exchanges[Sequence[TuningCheckpoint]]:
        """Ask for the models that stand between, the newest first."""

    def tidy(self, ticket: Ticket, target: Target) -> Exchanges[None]:
        """Take away at the vendor what the job needed."""


class BatchLine(Struct, frozen=True, kw_only=True):
    """One line of a batch as it goes to a vendor: a mark that tells it from the others, and its call."""

    mark: str
    call: HttpRequest


class BatchView(Struct, frozen=True, kw_only=True):
    """How a vendor says a batch stands. `files` are its ids of what came of it: answers, then errors.

    `counts` are lines in all, answered and failed. `faults` are what it found wrong, each with code, message, line and
    field.
    """

    status: Literal[
        "queued", "running", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled"
    ]
    counts: tuple[int, int, int] = (0, 0, 0)
    files: tuple[str, ...] = ()
    faults: tuple[tuple[str, str, int | None, str | None], ...] = ()


class BatchAnswer(Struct, frozen=True, kw_only=True):
    """What a vendor gave for one line: a reply, or (`code`, `message`) why there is none."""

    mark: str
    reply: HttpReply | None = None
    code: str = ""
    message: str = ""


class BatchCodec(Protocol):
    """One vendor's way to take many calls as a file, for less money. Every method works with nothing but the ticket."""

    look_every_s: float
    """How long to wait between two looks, at first."""

    def upload(self, lines: Sequence[BatchLine], target: Target, facts: Facts) -> Exchanges[str]:
        """Hand the file in, which costs nothing; returns the vendor's id of it.

        Raises:
            InvalidRequest: the lines are of different kinds.
            ProviderError: the vendor does not take it.
        """

    def create(
        self, file_id: str, lines: Sequence[BatchLine], target: Target, facts: Facts
    ) -> Exchanges[Ticket]:
        """Begin the batch, which is billed."""

    def look(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[BatchView]:
        """Ask how it stands."""

    def cancel(self, ticket: Ticket, target: Target, facts: Facts) -> Exchanges[None]:
        """Call it off; what is done stays done."""

    def fetch(self, file_id: str, target: Target) -> HttpRequest:
        """Return the request for one file of what came of it."""

    def read(self, line: bytes, target: Target) -> BatchAnswer:
        """Read one line of such a file.

        Raises:
            ProviderError: it is none.
        """


class VoiceCodec(Protocol):
    """One vendor's way to speak piece by piece: the sound itself, from the first byte of the answer on."""

    def encode(self, request: SpeechRequest, target: Target) -> HttpRequest:
        """Build the request; raises what `MediaCodec.run` raises."""

    def begin(self, head: HttpReply, request: SpeechRequest, target: Target) -> str:
        """Return the media type of an answer by its headers and its first bytes (`head.body`).

        Raises:
            ProviderError: it is no sound: a page, an error, nothing.
        """


class PresenceCodec(Protocol):
    """Asks for the models that are there, of a vendor whose servers and models come and go."""

    def encode(self, deployment: Deployment) -> HttpRequest:
        """Build the request."""

    def decode(self, reply: HttpReply) -> tuple[str, ...] | None:
        """Read the names from a successful reply, each in its plain form; None where it is no such list."""

    def plain(self, name: str) -> str:
        """Return the plain form of a model's name at the vendor, where one model goes by several."""


class LocalReply(Struct, frozen=True, kw_only=True):
    """The answer of a provider that lives inside the gateway. `chunks` come `delay_s` after the start.

    With `broken`, the connection ends there without completing the answer.
    """

    status: int
    headers: Mapping[str, str]
    chunks: Iterator[bytes]
    delay_s: float = 0.0
    broken: bool = False


class Provider(Struct, frozen=True, kw_only=True):
    """What a vendor can do. An operation that is None is not supported.

    `decode_error` turns any reply with a status of 300 or above into the typed error. `presence` is for vendors
    that may be away though they are configured. `respond` answers requests inside the process, for a provider
    that needs no network (given the request and the time in seconds since 1970). `apis` are the forms of chat that
    a target's `api` chooses from; none where there is but one. `media` are operations that are answered in one go,
    `jobs` those that take their time, `tuning` those that train models; `voice` is for vendors that speak piece by
    piece, `batches` for those that take many calls as a file.
    """

    dialect: str
    apis: tuple[Api, ...] = ()
    decode_error: Callable[[HttpReply, Target], ProviderError]
    chat: ChatCodec | None = None
    embedding: EmbeddingCodec | None = None
    count: CountCodec | None = None
    media: Mapping[Operation, MediaCodec] = {}
    jobs: Mapping[Operation, JobCodec] = {}
    tuning: TuningCodec | None = None
    voice: VoiceCodec | None = None
    presence: PresenceCodec | None = None
    batches: BatchCodec | None = None
    respond: Callable[[HttpRequest, float], LocalReply] | None = None

    def does(self, operation: Operation) -> bool:
        """Tell whether it can do an operation."""
        if operation in {"chat", "embedding"}:
            return (self.chat if operation == "chat" else self.embedding) is not None
        if operation == "fine_tune":
            return self.tuning is not None
        return operation in self.media or operation in self.jobs
