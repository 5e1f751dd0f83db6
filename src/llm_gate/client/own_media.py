"""A program's own providers of media, asked, paid and recorded like any other.

Theory of operation: a name in the gateway stands for objects of the program's own. A codec writes the options down as a
request; it is answered inside the process, by the object's own method. Pictures are made in a thread, since their
methods may block. A film is a task of the gateway's event loop, and the request that hands it in is answered by its
ticket; how it stands is asked like at a vendor, and what an exception says becomes the vendor's failure.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from decimal import Decimal
from fractions import Fraction
from typing import TypeVar, cast, get_args
from uuid import NAMESPACE_URL, uuid4, uuid5

import msgspec
from msgspec import Struct

from llm_gate.bootstrap import Gateway
from llm_gate.client.contracts import (
    DURATION_S,
    FaceSwapOptions,
    FaceSwapProvider,
    ImageEditOptions,
    ImageEditProvider,
    ImageGenerationOptions,
    ImageGenerationProvider,
    ImageGenerationResult,
    MediaProvider,
    VideoGenerationOptions,
    VideoGenerationProvider,
    VideoGenerationResult,
)
from llm_gate.client.foreign import ADDRESS, failure, guarded, raised
from llm_gate.client.own_codecs import GONE, JOBS, MEDIA, NAME, OK, SEED, Named, State, failed_own
from llm_gate.domain.catalog import MediaInput, MediaSpec, Model, Operation, ProviderEntry, ProviderSpec
from llm_gate.domain.money import parse_usd
from llm_gate.domain.pricing import Price, Unit
from llm_gate.domain.provider import (
    Auth,
    Deployment,
    HttpRequest,
    LocalReply,
    Provider,
)
from llm_gate.transport.local import BlockingReply, Threads

T = TypeVar("T")

SAID: ContextVar[dict[str, ImageGenerationResult]] = ContextVar("llm_gate_own_pictures")
"""What own providers said in one call, by the name of the picture."""

_BROKEN = 500
_LONGEST_NAME = 64
_KEPT_S = 600.0
_LONGEST_FILM_S = 600
_ALL_DONE = 100.0
_PROTOCOLS: Mapping[Operation, type] = {
    "image": ImageGenerationProvider,
    "image_edit": ImageEditProvider,
    "face_swap": FaceSwapProvider,
    "video": VideoGenerationProvider,
}
# What the options of one protocol or another can say; what only another's can is refused by the codec.
_TAKEN: tuple[MediaInput, ...] = (
    *("size", "negative_prompt", "guidance_scale", "steps", "seed", "mask", "face_index", "gender"),
    *("image", "audio", "duration_s", "resolution", "prompt_expansion"),
)
_SPEC = MediaSpec(
    takes=_TAKEN,
    # The first is what a film lasts where nobody says.
    durations_s=(int(DURATION_S), *(each for each in range(1, _LONGEST_FILM_S + 1) if each != DURATION_S)),
)


class _Film:
    """A film that is being made, or was: how far it is, and what came of it."""

    __slots__ = ("percent", "task")

    def __init__(self) -> None:
        self.percent = 0.0
        self.task: asyncio.Task[VideoGenerationResult] | None = None

    def tell(self, percent: float, _message: str = "") -> None:
        """Take note of how far it is; what is no number says nothing."""
        if isinstance(percent, int | float):
            self.percent = min(max(float(percent), 0.0), _ALL_DONE)

    @property
    def result(self) -> VideoGenerationResult | None:
        """The film, where it was made."""
        task = self.task
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result()


_named = msgspec.json.Decoder(Named)
_drawing = msgspec.json.Decoder(ImageGenerationOptions)
_editing = msgspec.json.Decoder(ImageEditOptions)
_swapping = msgspec.json.Decoder(FaceSwapOptions)
_filming = msgspec.json.Decoder(VideoGenerationOptions)


class OwnMedia:
    """The providers of media that a program brought into its gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._threads = Threads()
        self._providers: dict[str, dict[str, tuple[MediaProvider, Model]]] = {}
        self._films: dict[str, _Film] = {}

    def register(
        self,
        name: str,
        provider: MediaProvider,
        *,
        model: str = "own",
        prices: Mapping[Unit, str | Decimal] | None = None,
    ) -> None:
        """Let calls go to an object, as everything that it can do; one of the same names before it is replaced.

        Raises:
            TypeError: the object can do nothing of it.
            ValueError: a name cannot be one or is the catalog's, or a price is none.
        """
        if isinstance(provider, type):
            raise TypeError("provider: must be an object, not a class")
        does = tuple(each for each, protocol in _PROTOCOLS.items() if isinstance(provider, protocol))
        if not does:
            raise TypeError("provider: must have generate, edit, swap_face or generate_video")
        self._check_names(name, model)
        made = Model(
            id=str(uuid5(NAMESPACE_URL, f"llm-gate:own:{name}/{model}")),
            provider=name,
            name=model,
            label=model,
            description="",
            operations=does,
            media=_SPEC,
            prices=_prices(f"{name}/{model}", prices or {}),
        )
        known = self._providers.setdefault(name, {})
        known.pop(model, None)
        known[model] = (provider, made)
        self._add(name)

    def _check_names(self, name: str, model: str) -> None:
        for what, each in (("name", name), ("model", model)):
            if not each or len(each) > _LONGEST_NAME or not each.isprintable() or each != each.strip():
                raise ValueError(f"{what}: must be printable text of at most {_LONGEST_NAME} characters")
        if "/" in name:
            raise ValueError("name: must have no slash in it")
        directory = self._gateway.directory
        if name not in self._providers and (
            directory.canonical(name) is not None or name in directory.catalog.aliases
        ):
            raise ValueError(f"name: {name!r} is known already")

    def _add(self, name: str) -> None:
        models = {model: made for model, (_, made) in self._providers[name].items()}
        # The one that came last is what the bare name means.
        defaults = {operation: made.name for made in models.values() for operation in made.operations}
        spec = ProviderSpec(label=name, dialect="own", base_url=ADDRESS, defaults=defaults)
        entry = ProviderEntry(
            id=str(uuid5(NAMESPACE_URL, f"llm-gate:own:{name}")),
            name=name,
            label=name,
            description="A provider of the program's own",
            spec=spec,
            models=models,
        )
        deployment = Deployment(
            provider=name,
            base_url=ADDRESS,
            auth=Auth(kind="none"),
            spec=spec,
            codecs=Provider(
                dialect="own",
                decode_error=failed_own,
                media=MEDIA,
                jobs=JOBS,
                respond=lambda request, _now_s: self._respond(name, request),
            ),
            name=name,
            key=f"own:{name}",
        )
        self._gateway.gate.add_provider(entry, deployment)

    def film(self, provider: str, ticket: str) -> VideoGenerationResult | None:
        """Return what an own provider said of a film, where it was made here."""
        film = self._films.get(ticket) if provider in self._providers else None
        return None if film is None else film.result

    async def close(self) -> None:
        """Call off every film that is being made."""
        tasks = [film.task for film in self._films.values() if film.task is not None]
        self._films.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _respond(self, name: str, request: HttpRequest) -> LocalReply:
        match request.url.removeprefix(f"{ADDRESS}/"):
            case "generate":
                drawing = _drawing.decode(request.body)
                return self._paint(
                    name, drawing.model, lambda own: cast("ImageGenerationProvider", own).generate(drawing)
                )
            case "edit":
                editing = _editing.decode(request.body)
                return self._paint(
                    name, editing.model, lambda own: cast("ImageEditProvider", own).edit(editing)
                )
            case "swap_face":
                swapping = _swapping.decode(request.body)
                return self._paint(
                    name, swapping.model, lambda own: cast("FaceSwapProvider", own).swap_face(swapping)
                )
            case "films":
                return self._begin(name, _filming.decode(request.body))
            case "films/look":
                return self._look(_named.decode(request.body).id)
            case "films/collect":
                return self._collect(_named.decode(request.body).id)
            case _:
                return self._call_off(_named.decode(request.body).id)

    def _provider(self, name: str, model: str | None) -> MediaProvider | None:
        found = self._providers[name].get(model or "")
        return None if found is None else found[0]

    def _paint(
        self, name: str, model: str | None, work: Callable[[MediaProvider], ImageGenerationResult]
    ) -> LocalReply:
        """Answer by a picture that is made in a thread, with the context variables of the call."""
        provider = self._provider(name, model)
        if provider is None:
            return failure("nothing of that name was registered", GONE, guessed=False)
        context, said = copy_context(), SAID.get(None)

        def reply() -> LocalReply:
            result, error = guarded(lambda: context.run(work, provider))
            return raised(error) if error is not None else _picture(result, said)

        return BlockingReply(status=0, headers={}, chunks=iter(()), work=reply, threads=self._threads)

    def _begin(self, name: str, options: VideoGenerationOptions) -> LocalReply:
        provider = self._provider(name, options.model)
        if provider is None:
            return failure("nothing of that name was registered", GONE, guessed=False)
        film, ticket = _Film(), uuid4().hex

        async def make() -> VideoGenerationResult:
            return await cast("VideoGenerationProvider", provider).generate_video(options, film.tell)

        film.task = asyncio.get_running_loop().create_task(make(), context=copy_context())
        # Whoever never looks again leaves an exception that nobody has read.
        film.task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self._films[ticket] = film
        return _said(Named(id=ticket))

    def _look(self, ticket: str) -> LocalReply:
        film = self._films.get(ticket)
        if film is None or film.task is None:
            return failure("the process that made it has ended", GONE, guessed=False)
        if not film.task.done():
            return _said(State(percent=film.percent))
        if film.task.cancelled():
            return failure("it was called off", _BROKEN)
        error = film.task.exception()
        if isinstance(error, Exception):
            self._forget_later(ticket)
            return raised(error)
        data = getattr(film.task.result(), "video_bytes", None)
        if not isinstance(data, bytes) or not data:
            return failure("it returned no video_bytes", _BROKEN)
        return _said(State(percent=_ALL_DONE, is_done=True))

    def _collect(self, ticket: str) -> LocalReply:
        film = self._films.get(ticket)
        result = None if film is None else film.result
        if result is None:
            return failure("the process that made it has ended", GONE, guessed=False)
        self._forget_later(ticket)
        return LocalReply(status=OK, headers={}, chunks=iter((result.video_bytes,)))

    def _forget_later(self, ticket: str) -> None:
        """Keep what came of a film as long as it may be asked for once more."""
        asyncio.get_running_loop().call_later(_KEPT_S, self._films.pop, ticket, None)

    def _call_off(self, ticket: str) -> LocalReply:
        film = self._films.pop(ticket, None)
        is_off = film is not None and film.task is not None and film.task.cancel()
        return _said(State(is_done=is_off))


def _prices(model: str, prices: Mapping[Unit, str | Decimal]) -> tuple[Price, ...]:
    found = []
    for unit, amount in prices.items():
        if unit not in get_args(Unit):
            raise ValueError(f"prices: {unit!r} is no unit")
        nanos: Fraction = parse_usd(f"{amount:f}" if isinstance(amount, Decimal) else str(amount))
        # A record pins the price by this id, so whatever changes the amount changes the id.
        name = f"llm-gate:own-price:{model}/{unit}/{nanos}"
        found.append(
            Price(
                id=str(uuid5(NAMESPACE_URL, name)), unit=unit, per=1, nanos=nanos, source="the program itself"
            )
        )
    return tuple(found)


def _said(value: Struct) -> LocalReply:
    return LocalReply(status=OK, headers={}, chunks=iter((msgspec.json.encode(value),)))


def _picture(
    result: ImageGenerationResult | None, said: dict[str, ImageGenerationResult] | None
) -> LocalReply:
    data, seed = getattr(result, "image_bytes", None), getattr(result, "seed", None)
    if result is None or not isinstance(data, bytes) or not data:
        return failure("it returned no image_bytes", _BROKEN)
    name = uuid4().hex
    if said is not None:
        said[name] = result
    headers = {NAME: name, SEED: str(seed) if isinstance(seed, int) else ""}
    return LocalReply(status=OK, headers=headers, chunks=iter((data,)))
