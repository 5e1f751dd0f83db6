"""A gateway inside an asyncio program."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Self, Unpack

from llm_gate.bootstrap import Gateway, build
from llm_gate.client import films, media, search
from llm_gate.client.answers import (
    CallQuote,
    ChatAnswer,
    EmbeddingAnswer,
    GateStatus,
    chat_answer,
    embedding_answer,
)
from llm_gate.client.calls import caller_of, context_of, told_plainly
from llm_gate.client.contracts import (
    AudioGenerationResult,
    FaceSwapOptions,
    ImageEditOptions,
    ImageGenerationOptions,
    ImageGenerationResult,
    MediaProvider,
    ProgressCallback,
    TranscriptionResult,
    VideoGenerationOptions,
    VideoGenerationResult,
)
from llm_gate.client.media_requests import (
    FaceSwapWish,
    GivenMedium,
    ImageEditWish,
    ImageWish,
    SpeechWish,
    TranscriptionWish,
    VideoWish,
)
from llm_gate.client.own import OwnPlaces
from llm_gate.client.own_media import OwnMedia
from llm_gate.client.quotes import quoted
from llm_gate.client.requests import ChatOptions, Messages, Wish, chat_request, embedding_request
from llm_gate.client.research import (
    ResearchAnswer,
    ResearchWish,
    WorkflowQuote,
    ask_research,
    check_workflow,
)
from llm_gate.client.stream import TextStream
from llm_gate.client.text import TextCall, generate
from llm_gate.configuration import Source, placed_faults
from llm_gate.domain.pricing import Unit
from llm_gate.domain.research import ResearchEvent
from llm_gate.engine.cached_stream import AnswerStream
from llm_gate.settings import ENV_FILE, Settings

_CHAT, _STREAM, _EMBED = "LLMGate.chat", "LLMGate.stream", "LLMGate.embed"


class LLMGate:
    """A gateway in this process, with the configuration, stores and limits that `llm-gate serve` would have here.

    Use it as an async context manager, in one event loop. `source` says where the configuration is; without it,
    llm-gate.toml and .env of the working directory are read, and the environment.
    """

    def __init__(self, source: Source | None = None) -> None:
        self._source = source or Source(env_file=ENV_FILE)
        self._gateway: Gateway | None = None
        self._own: OwnPlaces | None = None
        self._own_media: OwnMedia | None = None

    async def __aenter__(self) -> Self:
        """Read the configuration and open the stores.

        Raises:
            GateError: the configuration is faulty, or the stores cannot be opened.
        """
        settings = self._source.read()
        with placed_faults(settings):
            gateway = build(settings)
        async with AsyncExitStack() as undo:
            undo.push_async_callback(gateway.close)
            await gateway.start()
            undo.pop_all()
        self._own = OwnPlaces(gateway, settings)
        self._own_media = OwnMedia(gateway)
        self._gateway = gateway
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Write what is left to write, and close every connection."""
        gateway, self._gateway, self._own = self._gateway, None, None
        own_media, self._own_media = self._own_media, None
        if own_media is not None:
            await own_media.close()
        if gateway is not None:
            await gateway.close()

    @property
    def gateway(self) -> Gateway:
        """The gateway itself.

        Raises:
            RuntimeError: the gate is not open.
        """
        if self._gateway is None:
            raise RuntimeError("the gate is not open: use it as `async with LLMGate() as gate:`")
        return self._gateway

    @property
    def own(self) -> OwnPlaces:
        """The places of the program's own beside those of the configuration.

        Raises:
            RuntimeError: the gate is not open.
        """
        if self._own is None:
            raise RuntimeError("the gate is not open: use it as `async with LLMGate() as gate:`")
        return self._own

    @property
    def settings(self) -> Settings:
        """The configuration that was read."""
        return self.own.settings

    async def text_gen(
        self,
        prompt: str,
        system_prompt: str | None = None,
        json_struct: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        *,
        model: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Any:
        """Answer a prompt; everything is as `llm_text_gen` has it."""
        wanted = TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            json_struct=json_struct,
            user_id=user_id,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
        )
        return await self.generate(wanted)

    async def generate(self, wanted: TextCall) -> Any:
        """Answer what a documented function asks."""
        return await generate(self.gateway, wanted)

    async def chat(self, messages: Messages, *, user_id: str, **options: Unpack[ChatOptions]) -> ChatAnswer:
        """Answer a prompt, or a conversation whose messages are as the OpenAI format has them.

        Args:
            messages: a prompt, or the messages of a conversation.
            user_id: for whom the call is counted, and whose plan limits it.
            **options: `ChatOptions`.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody could answer; its `errors` say why.
            GateError: something else is in the way.
        """
        wish = Wish(messages=messages, **options)
        context = context_of(caller_of(user_id), _CHAT, fallbacks=wish.fallbacks, timeout_s=wish.timeout_s)
        with told_plainly():
            answer = await self.gateway.gate.chat(chat_request(wish), context)
        return chat_answer(answer, wants_object=wish.json_struct is not None)

    def stream(self, messages: Messages, *, user_id: str, **options: Unpack[ChatOptions]) -> TextStream:
        """Answer as a stream; everything is as `chat` has it.

        `async with gate.stream(...) as stream:`, then `async for text in stream:`; afterwards `stream.answer` is the
        whole. Leaving early stops the provider.
        """
        wish = Wish(messages=messages, **options)
        caller, request = caller_of(user_id), chat_request(wish, stream=True)

        async def opening() -> AnswerStream:
            context = context_of(caller, _STREAM, fallbacks=wish.fallbacks, timeout_s=wish.timeout_s)
            with told_plainly():
                return await self.gateway.gate.chat_stream(request, context)

        return TextStream(opening, wants_object=wish.json_struct is not None)

    async def embed(
        self,
        texts: str | Sequence[str],
        *,
        user_id: str,
        model: str = "",
        dimensions: int | None = None,
        fallbacks: Sequence[str] = (),
        timeout_s: float | None = None,
    ) -> EmbeddingAnswer:
        """Turn texts into vectors, one for each, in their order; `dimensions` is how long a vector is to be.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody could answer; its `errors` say why.
            GateError: something else is in the way.
        """
        request = embedding_request(texts, model=model, dimensions=dimensions)
        context = context_of(caller_of(user_id), _EMBED, fallbacks=fallbacks, timeout_s=timeout_s)
        with told_plainly():
            return embedding_answer(await self.gateway.gate.embed(request, context))

    async def quote(
        self,
        messages: Messages,
        *,
        user_id: str,
        model: str = "",
        system: str | None = None,
        max_tokens: int | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> CallQuote:
        """Say what a chat would cost, and whether the user may have it; nothing is sent or held.

        Raises:
            GateError: nothing of that name is known, or the stores cannot be reached.
        """
        caller = caller_of(user_id)
        wish = Wish(messages=messages, model=model, system=system, max_tokens=max_tokens, tools=tools)
        return await quoted(self.gateway, chat_request(wish), caller, datetime.now(UTC))

    async def status(self) -> GateStatus:
        """Say who is asked where nobody is named, who answered last, and how every place that was called is doing."""
        gate = self.gateway.gate
        directory = gate.directory
        named = directory.named or directory.preference()[:1]
        primary = named[0] if named else None
        return GateStatus(
            primary=primary,
            fallbacks=named[1:],
            current=gate.fleet.current or primary,
            places=tuple(gate.fleet.statuses()),
        )

    async def image(
        self, prompt: str | ImageGenerationOptions, *, user_id: str, **options: Unpack[ImageWish]
    ) -> ImageGenerationResult:
        """Make a picture; everything is as `images` has it."""
        return (await media.images(self._media("image", user_id, options), prompt, 1))[0]

    async def images(
        self, prompt: str | ImageGenerationOptions, *, user_id: str, n: int = 1, **options: Unpack[ImageWish]
    ) -> list[ImageGenerationResult]:
        """Make pictures.

        Args:
            prompt: what they are to show, or the options of a picture; further options go before those.
            user_id: for whom the call is counted, and whose plan limits it.
            n: how many are wanted.
            **options: `ImageWish`.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody could make them; its `errors` say why.
            InvalidRequest: the model cannot do what is asked.
            GateError: something else is in the way.
        """
        return await media.images(self._media("images", user_id, options), prompt, n)

    async def edit_image(
        self,
        image: GivenMedium | Sequence[GivenMedium] | ImageEditOptions,
        prompt: str = "",
        *,
        user_id: str,
        mask: GivenMedium | None = None,
        **options: Unpack[ImageEditWish],
    ) -> ImageGenerationResult:
        """Change a picture, or several into one; `mask` marks where. Everything else is as `images` has it."""
        return await media.edit_image(self._media("edit_image", user_id, options), image, prompt, mask)

    async def swap_face(
        self,
        image: GivenMedium | FaceSwapOptions,
        face: GivenMedium | None = None,
        *,
        user_id: str,
        **options: Unpack[FaceSwapWish],
    ) -> ImageGenerationResult:
        """Put the face of one picture into another. Everything else is as `images` has it."""
        return await media.swap_face(self._media("swap_face", user_id, options), image, face)

    async def speech(
        self, text: str, *, user_id: str, **options: Unpack[SpeechWish]
    ) -> AudioGenerationResult:
        """Read a text out. Everything else is as `images` has it."""
        return await media.speech(self._media("speech", user_id, options), text)

    async def transcribe(
        self, audio: GivenMedium, *, user_id: str, **options: Unpack[TranscriptionWish]
    ) -> TranscriptionResult:
        """Write a recording down. Everything else is as `images` has it."""
        return await media.transcribe(self._media("transcribe", user_id, options), audio)

    async def search(
        self, query: str = "", *, user_id: str, **options: Unpack[search.SearchWish]
    ) -> search.SearchAnswer:
        """Search the web, the news, pictures or papers; read pages; have a question answered.

        What comes of it was written by strangers: it is data, and nothing in it is ever acted upon. Without a model,
        every search provider that is configured may be asked, in their order, until one answers.

        Args:
            query: what is looked for; with kind "contents" there need be none.
            user_id: for whom the call is counted, and whose plan limits it.
            **options: `SearchWish`.

        Raises:
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody could answer; its `errors` say why.
            InvalidRequest: nobody can do what is asked, such as a filter.
            GateError: something else is in the way.
        """
        return await search.search(self._media("search", user_id, options), query)

    async def research(
        self,
        question: str,
        *,
        user_id: str,
        on_event: Callable[[ResearchEvent], None] | None = None,
        **options: Unpack[ResearchWish],
    ) -> ResearchAnswer:
        """Answer a question from what a web search finds, with citations that point at what was found.

        What all of it may cost is held before anything is sent, and what is left is given back at the end.

        Args:
            question: what is to be answered.
            user_id: for whom the calls are counted, and whose plan limits them.
            on_event: is told what happens: what is searched for, what was found. It must not block.
            **options: `ResearchWish`.

        Raises:
            QuotaExceeded: a limit leaves no room for all of its steps; nothing was sent.
            AllAttemptsFailed: nobody could search, or answer; its `errors` say why.
            InvalidRequest: nobody can search as it is asked.
            GateError: something else is in the way.
        """
        return await ask_research(self.gateway, question, user_id, options, on_event)

    async def check_workflow(
        self, name: str, *, user_id: str, provider: str | None = None, count: int = 1
    ) -> WorkflowQuote:
        """Say what a workflow would cost that the documents know by its name; nothing is sent or held.

        `name` is `VENDOR_research`, `calendar`, `image_generation` and the like (docs/preflight.md); `provider` is who
        answers or makes, `count` how many pictures there are.

        Raises:
            QuotaExceeded: a limit leaves no room for one of its operations.
            GateError: there is no such workflow, or something else is in the way.
        """
        return await check_workflow(self.gateway, name, user_id, provider, count)

    async def video(
        self,
        prompt: str | VideoGenerationOptions,
        *,
        user_id: str,
        image: GivenMedium | None = None,
        audio: GivenMedium | None = None,
        progress_callback: ProgressCallback | None = None,
        **options: Unpack[VideoWish],
    ) -> VideoGenerationResult:
        """Make a film, and wait for it. Whoever is cancelled meanwhile calls it off.

        Args:
            prompt: what it is to show, or the options of a film; further options go before those.
            user_id: for whom the call is counted, and whose plan limits it.
            image: the picture it begins with.
            audio: the sound it goes to.
            progress_callback: is told how far it is, in percent, and what is done: 10 while it is handed in, 20 when it
                was taken, up to 80 while it is made, 90 while it is fetched, 100 when it is here. It must not block.
            **options: `VideoWish`.

        Raises:
            VideoNotReady: it is not there after `timeout_s`; it goes on, and `resume_video` waits for it again.
            VideoFailed: it was not made, or called off.
            QuotaExceeded: a limit leaves no room; nothing was sent.
            AllAttemptsFailed: nobody would take it; its `errors` say why.
            GateError: something else is in the way.
        """
        call = self._media("video", user_id, options)
        return await films.video(call, prompt, image, audio, progress_callback)

    async def resume_video(
        self,
        job_id: str,
        *,
        user_id: str,
        progress_callback: ProgressCallback | None = None,
        timeout_s: float | None = None,
    ) -> VideoGenerationResult:
        """Wait for a film that was handed in before; nothing is paid again. Everything else is as `video` has it.

        Raises:
            NotFound: the user has no job of that id.
        """
        following = films.Following(callback=progress_callback, timeout_s=timeout_s)
        return await films.resume_video(self._media("resume_video", user_id, {}), job_id, following)

    def calculate_cost(
        self, model: str, resolution: str | None = None, duration: float | None = None
    ) -> float | None:
        """Return what a film of a model costs, in dollars; None where its price is not known. Nothing is sent.

        `duration` is in seconds, of which begun ones count. What is left out, or has no price of its own, is what the
        model makes where nobody says.

        Raises:
            GateError: nothing of that name is known.
        """
        return films.calculate_cost(self.gateway, model, resolution, duration)

    def register_media_provider(
        self,
        name: str,
        provider: MediaProvider,
        *,
        model: str = "own",
        prices: Mapping[Unit, str | Decimal] | None = None,
    ) -> None:
        """Let calls go to an object of the program's own, as `name/model`, within the same limits as to any other.

        Args:
            name: what it is called; the name alone means the model that was registered last.
            provider: has `generate`, `edit`, `swap_face` or `generate_video`, or several of these.
            model: what is told to it as the model.
            prices: what one of a unit costs in dollars, such as {"images": "0.04"} or {"seconds": "0.1"}; without them,
                what it costs is not known, and plans that limit money refuse it.

        Raises:
            TypeError: the object can do nothing of it.
            ValueError: a name cannot be one or is the catalog's, or a price is none.
        """
        self._opened_media.register(name, provider, model=model, prices=prices)

    @property
    def _opened_media(self) -> OwnMedia:
        if self._own_media is None:
            raise RuntimeError("the gate is not open: use it as `async with LLMGate() as gate:`")
        return self._own_media

    def _media(self, method: str, user_id: str, options: Mapping[str, Any]) -> media.MediaCall:
        return media.MediaCall(
            gateway=self.gateway,
            own=self._opened_media,
            user_id=user_id,
            endpoint=f"LLMGate.{method}",
            options=options,
        )
