"""Media in the library: pictures, edits, face swaps, films, voices and transcripts, by the sandbox and by own code."""

import asyncio
import base64
import contextvars
import threading
import time
from dataclasses import asdict, dataclass, fields
from decimal import Decimal

import pytest

from llm_gate import (
    BlockingLLMGate,
    FaceSwapOptions,
    FaceSwapProvider,
    GateError,
    ImageEditOptions,
    ImageEditProvider,
    ImageGenerationOptions,
    ImageGenerationProvider,
    ImageGenerationResult,
    LLMGate,
    QuotaExceeded,
    Source,
    VideoFailed,
    VideoGenerationOptions,
    VideoGenerationProvider,
    VideoGenerationResult,
    VideoNotReady,
)
from llm_gate.client.contracts import AudioGenerationResult
from llm_gate.domain.errors import InvalidRequest, NotFound

TOML = """
    [plans]
    default = "small"
    [plans.custom.small.limits]
    image_calls = 8
    image_edit_calls = 8
    monthly_cost_usd = "0.20"
"""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def source(tmp_path):
    (tmp_path / "llm-gate.toml").write_text(TOML)
    return Source(config_file=tmp_path / "llm-gate.toml", overrides={"data_dir": tmp_path / "data"})


@pytest.fixture
def gate(source):
    with BlockingLLMGate(source) as opened:
        yield opened


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Return a whole picture."""
    folder = tmp_path_factory.mktemp("picture")
    with BlockingLLMGate(Source(overrides={"data_dir": folder})) as opened:
        return opened.image("Stone", user_id="ann", model="sandbox/image", size="64x48").image_bytes


def in_asyncio(source, work):
    """Do something with an open gate in an event loop of this thread."""

    async def main():
        async with LLMGate(source) as gate:
            return await work(gate)

    return asyncio.run(main())


# --- The contract


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ImageGenerationOptions(prompt="p"),
            {
                "prompt": "p",
                "negative_prompt": None,
                "width": 1024,
                "height": 1024,
                "guidance_scale": None,
                "steps": None,
                "seed": None,
                "model": None,
                "extra": None,
            },
        ),
        (
            VideoGenerationOptions(prompt="p"),
            {
                "prompt": "p",
                "duration": 5,
                "resolution": "720p",
                "negative_prompt": None,
                "seed": None,
                "audio_base64": None,
                "enable_prompt_expansion": True,
                "model": None,
                "extra": None,
            },
        ),
    ],
)
def test_options_are_as_documented(options, expected):
    """The fields stand in their order, with the documented defaults."""
    assert list(asdict(options).items()) == list(expected.items())
    assert repr(options).count("_Left") == 0


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ImageGenerationResult, "image_bytes width height provider model seed metadata"),
        (
            VideoGenerationResult,
            (
                "video_bytes prompt duration model_name cost provider resolution width height metadata"
                " source_video_url prediction_id"
            ),
        ),
        (AudioGenerationResult, "audio_bytes provider model voice_id text_length file_size metadata"),
    ],
)
def test_results_are_as_documented(kind, names):
    """The fields stand in their order."""
    assert [each.name for each in fields(kind)] == names.split()


def test_options_as_dictionaries():
    """What is required is always there, the rest only where it is said, and `extra` goes over all."""
    edit = ImageEditOptions(image_base64="aa", prompt="p", operation="inpaint", seed=0)
    assert edit.to_dict() == {"image_base64": "aa", "prompt": "p", "operation": "inpaint", "seed": 0}
    edit.extra = {"prompt": "other", "odd": None}
    assert edit.to_dict() == {
        "image_base64": "aa",
        "prompt": "other",
        "operation": "inpaint",
        "seed": 0,
        "odd": None,
    }
    swap = FaceSwapOptions(base_image_base64="aa", face_image_base64="bb", target_face_index=0)
    assert swap.to_dict() == {"base_image_base64": "aa", "face_image_base64": "bb", "target_face_index": 0}


# --- Pictures


def test_a_picture(gate):
    """A prompt becomes a picture of the size that was asked for, and says how it came about."""
    made = gate.image("A lighthouse", user_id="ann", model="sandbox/image", size="320x200", seed=7)

    assert made.image_bytes.startswith(PNG)
    assert (made.width, made.height, made.seed) == (320, 200, 7)
    assert (made.provider, made.model) == ("sandbox", "image")
    assert made.metadata["media_type"] == "image/png"
    assert (made.metadata["cost_usd"], made.metadata["attempts"]) == (0, 1)
    assert "synthetic" in made.metadata["notes"][0]


def test_several_pictures(gate):
    """Several pictures come in one list, and count as that many."""
    made = gate.images("A lighthouse", user_id="ann", n=4, model="sandbox/image", size="64x64")

    assert len({each.image_bytes for each in made}) == 4
    assert len(gate.images("Fog", user_id="ann", n=4, model="sandbox/image", size="64x64")) == 4
    with pytest.raises(QuotaExceeded) as caught:
        gate.image("One too many", user_id="ann", model="sandbox/image")
    assert caught.value.status_code == 429
    assert gate.image("Another's", user_id="bob", model="sandbox/image", size="64x64").provider == "sandbox"


def test_a_picture_by_options(gate):
    """Options say the same in one object; what is said beside them goes before."""
    options = ImageGenerationOptions(prompt="Sea", width=200, height=100, seed=3, model="sandbox/image")

    assert gate.image(options, user_id="ann").seed == 3
    made = gate.image(options, user_id="ann", seed=4, format="jpeg")
    assert (made.width, made.height, made.seed) == (200, 100, 4)
    assert made.metadata["media_type"] == "image/jpeg"
    usual = gate.image(ImageGenerationOptions(prompt="Sea", model="sandbox/image"), user_id="ann")
    assert (usual.width, usual.height) == (1024, 1024)


@pytest.mark.parametrize("form", ["bytes", "path", "base64", "data URL", "options"])
def test_an_edit(gate, picture, tmp_path, form):
    """A picture may come as bytes, as a file, as text or in options."""
    (tmp_path / "given.png").write_bytes(picture)
    text = base64.b64encode(picture).decode()
    given = {
        "bytes": picture,
        "path": tmp_path / "given.png",
        "base64": text,
        "data URL": f"data:image/png;base64,{text}",
        "options": ImageEditOptions(image_base64=text, prompt="More fog", operation="general_edit"),
    }[form]
    made = gate.edit_image(given, "More fog", user_id="ann", model="sandbox/image-edit")

    assert made.image_bytes.startswith(PNG)
    assert made.image_bytes != picture
    assert made.width == 64


def test_a_masked_edit_and_several_pictures(gate, picture):
    """A mask and several pictures are handed on."""
    wished = {"user_id": "ann", "model": "sandbox/image-edit"}
    plain = gate.edit_image([picture, picture], "Fog", **wished)
    masked = gate.edit_image([picture, picture], "Fog", mask=picture, operation="inpaint", **wished)

    assert plain.image_bytes != masked.image_bytes


def test_a_face_swap(gate, picture):
    """Two pictures become one, by bytes or by options."""
    text = base64.b64encode(picture).decode()
    options = FaceSwapOptions(
        base_image_base64=text, face_image_base64=text, model="sandbox/face-swap", target_gender="female"
    )

    assert gate.swap_face(picture, picture, user_id="ann", model="sandbox/face-swap").width == 64
    assert gate.swap_face(options, user_id="ann").model == "face-swap"


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        (lambda gate: gate.image("", user_id="ann"), InvalidRequest),
        (lambda gate: gate.image(5, user_id="ann"), TypeError),
        (lambda gate: gate.image("Sea"), TypeError),
        (lambda gate: gate.image("Sea", user_id=""), RuntimeError),
        (lambda gate: gate.image("Sea", user_id="ann", sise="1x1"), TypeError),
        (lambda gate: gate.image("Sea", user_id="ann", n=2), TypeError),
        (lambda gate: gate.image("Sea", user_id="ann", size="big"), InvalidRequest),
        (lambda gate: gate.image("Sea", user_id="ann", steps="many"), InvalidRequest),
        (lambda gate: gate.image("Sea", user_id="ann", extra={"odd": object()}), InvalidRequest),
        (lambda gate: gate.image("Sea", user_id="ann", timeout_s=0), ValueError),
        (lambda gate: gate.images("Sea", user_id="ann", n=0), InvalidRequest),
        (lambda gate: gate.images("Sea", user_id="ann", n=True), InvalidRequest),
        (lambda gate: gate.edit_image(b"", "Fog", user_id="ann"), InvalidRequest),
        (lambda gate: gate.edit_image([], "Fog", user_id="ann"), InvalidRequest),
        (lambda gate: gate.edit_image("/etc/passwd", "Fog", user_id="ann"), InvalidRequest),
        (lambda gate: gate.edit_image(b"GIF89a", "Fog", user_id="ann"), InvalidRequest),
        (lambda gate: gate.edit_image(b"x", "Fog", user_id="ann", operation="paint"), InvalidRequest),
        (lambda gate: gate.swap_face(b"x", user_id="ann"), InvalidRequest),
        (lambda gate: gate.edit_image(b"x", 5, user_id="ann"), TypeError),
        (lambda gate: gate.swap_face(b"x", b"x", user_id="ann", target_face_index=-1), InvalidRequest),
        (lambda gate: gate.transcribe(7, user_id="ann"), TypeError),
        (lambda gate: gate.transcribe(b"x", user_id="ann", timestamps=["line"]), InvalidRequest),
        (lambda gate: gate.speech(" ", user_id="ann"), InvalidRequest),
        (lambda gate: gate.video("Sea", user_id="ann", duration="5"), InvalidRequest),
        (lambda gate: gate.resume_video("nothing", user_id="ann"), NotFound),
        (lambda gate: gate.calculate_cost("nobody/nothing"), NotFound),
        (lambda gate: gate.calculate_cost("sandbox/video", duration=0), ValueError),
    ],
)
def test_what_makes_no_sense_is_refused(gate, call, kind):
    """Whatever is wrong with a call is said before anything is sent."""
    with pytest.raises(kind):
        call(gate)


def test_a_text_is_never_taken_for_a_path(gate, picture, tmp_path):
    """A text that is the name of a file is not read: it may come from somebody who should not read it."""
    (tmp_path / "given.png").write_bytes(picture)
    with pytest.raises(InvalidRequest, match="Path"):
        gate.edit_image(str(tmp_path / "given.png"), "Fog", user_id="ann", model="sandbox/image-edit")
    with pytest.raises(FileNotFoundError):
        gate.edit_image(tmp_path / "none.png", "Fog", user_id="ann", model="sandbox/image-edit")


# --- Voices and transcripts


def test_a_voice_and_what_it_said(gate):
    """What was read out can be written down again."""
    spoken = gate.speech("Good morning", user_id="ann", model="sandbox/speech", voice="Wise_Woman")

    assert spoken.audio_bytes.startswith(b"RIFF")
    assert (spoken.provider, spoken.model, spoken.voice_id) == ("sandbox", "speech", "Wise_Woman")
    assert (spoken.text_length, spoken.file_size) == (12, len(spoken.audio_bytes))
    assert spoken.metadata["media_type"] == "audio/wav"

    heard = gate.transcribe(
        spoken.audio_bytes, user_id="ann", model="sandbox/transcription", timestamps=["word", "segment"]
    )
    assert heard.text == "Good morning"
    assert [word.text for word in heard.words] == ["Good", "morning"]
    assert heard.segments[0].end_s == pytest.approx(heard.duration)
    assert heard.duration == pytest.approx(spoken.metadata["duration_s"])
    assert (heard.provider, heard.metadata["cost_usd"]) == ("sandbox", 0)


# --- Films


def test_a_film(gate):
    """A prompt becomes a film; the stages are told in their order, and never go back."""
    told = []
    made = gate.video(
        "Waves",
        user_id="ann",
        model="sandbox/video",
        duration=1,
        resolution="360p",
        progress_callback=lambda percent, message: told.append((percent, message)),
    )

    assert made.video_bytes.startswith(b"GIF8")
    assert (made.provider, made.model_name, made.prompt) == ("sandbox", "video", "Waves")
    assert (made.resolution, made.cost) == ("360p", 0.0)
    # As its bytes tell.
    assert made.duration == pytest.approx(1, abs=0.1)
    assert min(made.width, made.height) == 360
    assert made.prediction_id
    percents = [percent for percent, _ in told]
    assert percents == sorted(percents)
    assert percents[:2] == [10, 20]
    assert percents[-2:] == [90, 100]
    assert told[0][1] == "submitting"
    assert told[-1][1] == "done"


def test_a_film_by_options(gate, picture):
    """Options say the same; what they leave out is the model's, and a picture to begin with stands in `extra`."""
    text = base64.b64encode(picture).decode()
    usual = gate.video(VideoGenerationOptions(prompt="Waves", model="sandbox/video"), user_id="ann")
    asked = VideoGenerationOptions(
        prompt="Waves", duration=1, resolution="360p", model="sandbox/video", extra={"image": text}
    )
    made = gate.video(asked, user_id="ann")

    # The sandbox's own, not the 5 s and 720p that stand in the options.
    assert (round(usual.duration), usual.resolution) == (4, "480p")
    assert (round(made.duration), made.resolution) == (1, "360p")
    assert made.video_bytes != usual.video_bytes


def test_waiting_for_a_film_again(gate):
    """Whoever has waited long enough is told which job it is, and may wait for it again; nobody else may."""
    with pytest.raises(VideoNotReady) as caught:
        gate.video("Waves", user_id="ann", model="sandbox/video", duration=1, timeout_s=0.01)
    job_id = caught.value.job_id

    with pytest.raises(NotFound):
        gate.resume_video(job_id, user_id="bob")
    made = gate.resume_video(job_id, user_id="ann")
    assert made.metadata["job_id"] == job_id
    assert gate.resume_video(job_id, user_id="ann").video_bytes == made.video_bytes


def test_leaving_a_film_calls_it_off(source):
    """A call that is cancelled takes its job along."""

    async def work(gate):
        films = SlowFilms()
        gate.register_media_provider("mine", films, prices={"seconds": "0.001"})
        call = asyncio.create_task(gate.video("Waves", user_id="ann", model="mine"))
        await asyncio.wait_for(films.began.wait(), 10)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await asyncio.wait_for(films.ended.wait(), 10)
        return films

    assert in_asyncio(source, work).was_cancelled


def test_leaving_the_gate_ends_own_films(source):
    """A gate that is closed leaves nobody working behind."""

    async def main():
        films = SlowFilms()
        async with LLMGate(source) as gate:
            gate.register_media_provider("mine", films, prices={"seconds": "0.001"})
            with pytest.raises(VideoNotReady):
                await gate.video("Waves", user_id="ann", model="mine", timeout_s=0.5)
            assert not films.ended.is_set()
        return films.was_cancelled

    assert asyncio.run(main())


def test_a_callback_that_raises_ends_the_call(source):
    """What a callback raises reaches the caller, and nobody works on."""

    async def work(gate):
        films = SlowFilms()
        gate.register_media_provider("mine", films, prices={"seconds": "0.001"})

        def broken(percent, _message):
            if percent > 10:
                raise KeyError(percent)

        with pytest.raises(KeyError):
            await gate.video("Waves", user_id="ann", model="mine", progress_callback=broken)
        await asyncio.wait_for(films.ended.wait(), 10)
        return films

    assert in_asyncio(source, work).was_cancelled


@pytest.mark.parametrize(
    ("model", "resolution", "duration", "expected"),
    [
        ("sandbox/video", "720p", 5, 0.0),
        ("mine/film", "720p", 5, 0.5),
        ("mine/film", "no such", 2.1, 0.3),
        ("mine", None, None, 0.5),
        ("mine/free", "720p", 5, None),
    ],
)
def test_what_a_film_costs(gate, model, resolution, duration, expected):
    """The price store tells what a film costs, by begun seconds; None where it has no price."""
    gate.register_media_provider("mine", Films(), model="free")
    gate.register_media_provider("mine", Films(), model="film", prices={"seconds": "0.1"})

    assert gate.calculate_cost(model, resolution, duration) == (
        None if expected is None else pytest.approx(expected)
    )


# --- Own providers


@dataclass
class Pictures:
    """Makes whatever is asked for out of one picture."""

    data: bytes
    failure: Exception | None = None
    answer: object = None

    def __post_init__(self):
        self.seen = []
        self.threads = []

    def _made(self, options):
        self.seen.append(options)
        self.threads.append(threading.current_thread())
        if self.failure is not None:
            raise self.failure
        if self.answer is not None:
            return self.answer
        return ImageGenerationResult(
            image_bytes=self.data,
            width=1,
            height=1,
            provider="me",
            model="whatever",
            seed=11,
            metadata={"brush": {1, 2}, "who": WHO.get("")},
        )

    def generate(self, options):
        return self._made(options)

    def edit(self, options):
        return self._made(options)

    def swap_face(self, options):
        return self._made(options)


WHO = contextvars.ContextVar("who")


class Films:
    """Makes films at once, and says how far it is."""

    def __init__(self, failure=None, video=b"\x00\x00\x00\x18ftypmp42"):
        self.failure = failure
        self.video = video
        self.seen = []

    async def generate_video(self, options, progress_callback=None):
        self.seen.append(options)
        progress_callback(50.0, "half of it")
        await asyncio.sleep(0.5)
        if self.failure is not None:
            raise self.failure
        return VideoGenerationResult(
            video_bytes=self.video,
            prompt=options.prompt,
            duration=5.2,
            model_name="whatever",
            cost=9.0,
            provider="me",
            resolution=options.resolution,
            width=1280,
            height=720,
            metadata={"cut": 3},
            prediction_id="p1",
        )


class SlowFilms:
    """Makes films that never end."""

    def __init__(self):
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.was_cancelled = False

    async def generate_video(self, options, progress_callback=None):
        self.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        finally:
            self.ended.set()


def test_own_pictures(gate, picture):
    """An object of the program's own gets the documented options, works in a thread, and is paid as it was said."""
    mine = Pictures(picture)
    assert isinstance(mine, ImageGenerationProvider)
    assert not isinstance(mine, VideoGenerationProvider)
    gate.register_media_provider("mine", mine, prices={"images": "0.04"})
    WHO.set("ann's")
    made = gate.image("Sea", user_id="ann", model="mine/own", negative_prompt="ships", extra={"odd": [1]})

    assert mine.seen == [
        ImageGenerationOptions(prompt="Sea", negative_prompt="ships", model="own", extra={"odd": [1]})
    ]
    assert mine.threads[0] not in {threading.current_thread(), gate.background._thread}
    assert made.image_bytes == picture
    # As the gateway measured them, not as they were said.
    assert (made.width, made.height, made.seed) == (64, 48, 11)
    assert (made.provider, made.model) == ("mine", "own")
    assert made.metadata["cost_usd"] == Decimal("0.04")
    assert (made.metadata["brush"], made.metadata["who"]) == ({1, 2}, "ann's")


def test_own_edits_and_face_swaps(gate, picture):
    """Pictures reach an own provider as base64."""
    mine = Pictures(picture)
    assert isinstance(mine, ImageEditProvider)
    assert isinstance(mine, FaceSwapProvider)
    gate.register_media_provider("mine", mine, prices={"images": "0.01"})
    text = base64.b64encode(picture).decode()
    gate.edit_image(picture, "Fog", mask=picture, user_id="ann", model="mine", operation="inpaint", seed=5)
    gate.swap_face(picture, picture, user_id="ann", model="mine", target_face_index=2, target_gender="male")

    assert mine.seen == [
        ImageEditOptions(
            image_base64=text, prompt="Fog", operation="inpaint", mask_base64=text, seed=5, model="own"
        ),
        FaceSwapOptions(
            base_image_base64=text,
            face_image_base64=text,
            model="own",
            target_face_index=2,
            target_gender="male",
        ),
    ]


def test_own_providers_are_limited(gate, picture):
    """The plan's money limits own providers; one whose price nobody said is refused where money is limited."""
    mine = Pictures(picture)
    gate.register_media_provider("mine", mine, prices={"images": Decimal("0.07")})
    gate.register_media_provider("free", mine)
    for _ in range(2):
        gate.image("Sea", user_id="ann", model="mine")
    with pytest.raises(QuotaExceeded):
        gate.image("Sea", user_id="ann", model="mine")
    with pytest.raises(GateError, match="price"):
        gate.image("Sea", user_id="bob", model="free")
    assert len(mine.seen) == 2


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"failure": ValueError("no paint left")}, "no paint left"),
        ({"failure": RuntimeError("Error code: 401 - bad key")}, "credential"),
        ({"answer": "a text"}, "image_bytes"),
        ({"data": b""}, "image_bytes"),
        ({"data": b"no picture"}, "whole picture"),
    ],
)
def test_own_providers_that_fail(gate, picture, trouble, says):
    """What goes wrong in own code is a provider's failure; a fallback answers, and nothing is paid for an exception."""
    mine = Pictures(**{"data": picture, **trouble})
    gate.register_media_provider("mine", mine, prices={"images": "0.15"})
    with pytest.raises(GateError, match=says):
        gate.image("Sea", user_id="ann", model="mine")
    made = gate.image("Sea", user_id="bob", model="mine", fallbacks=["sandbox/image"])
    assert made.provider == "sandbox"
    if "failure" in trouble:
        gate.register_media_provider("other", Pictures(picture), prices={"images": "0.15"})
        assert gate.image("Sea", user_id="ann", model="other").metadata["cost_usd"] == Decimal("0.15")


def test_what_options_cannot_say_is_refused(gate, picture):
    """What the protocol has no word for does not get lost in silence."""
    mine = Pictures(picture)
    gate.register_media_provider("mine", mine, prices={"images": "0.01"})
    for more in ({"quality": "high"}, {"format": "webp"}, {"resolution": "2K"}):
        with pytest.raises(InvalidRequest):
            gate.image("Sea", user_id="ann", model="mine", **more)
    with pytest.raises(InvalidRequest):
        gate.images("Sea", user_id="ann", model="mine", n=2)
    with pytest.raises(InvalidRequest):
        gate.video("Sea", user_id="ann", model="mine/own")
    assert mine.seen == []


def test_an_own_film(gate):
    """An own provider's film is a job like any other: it is followed, paid by its seconds, and told as it said."""
    mine, told = Films(), []
    gate.register_media_provider("mine", mine, prices={"seconds": "0.02"})
    made = gate.video(
        "Waves",
        user_id="ann",
        model="mine",
        audio=b"RIFF\x00\x00\x00\x00WAVE",
        progress_callback=lambda percent, _message: told.append(percent),
    )

    assert mine.seen == [
        VideoGenerationOptions(
            prompt="Waves",
            audio_base64=base64.b64encode(b"RIFF\x00\x00\x00\x00WAVE").decode(),
            model="own",
        )
    ]
    assert made.video_bytes == mine.video
    assert (made.provider, made.model_name, made.cost) == ("mine", "own", pytest.approx(0.10))
    assert (made.duration, made.width, made.height) == (5.2, 1280, 720)
    assert (made.resolution, made.prediction_id) == ("720p", "p1")
    assert (made.metadata["cut"], made.metadata["media_type"]) == (3, "video/mp4")
    assert told == sorted(told)
    # Half of what lies between 20 and 80.
    assert 50 in told


@pytest.mark.parametrize(
    ("films", "says"),
    [(Films(ValueError("no film left")), "no film left"), (Films(video=b""), "video_bytes")],
)
def test_an_own_film_that_fails(gate, films, says):
    """A film that was not made says why, and costs nothing."""
    gate.register_media_provider("mine", films, prices={"seconds": "0.03"})
    for _ in range(3):
        with pytest.raises(VideoFailed, match=says) as caught:
            gate.video("Waves", user_id="ann", model="mine")
    assert caught.value.code == "provider_unavailable"
    assert caught.value.job_id


def test_own_films_in_asyncio(source):
    """A film is made in the loop of the program, beside everything else."""
    loops = []

    class InLoop(Films):
        async def generate_video(self, options, progress_callback=None):
            loops.append(asyncio.get_running_loop())
            return await super().generate_video(options, progress_callback)

    async def work(gate):
        gate.register_media_provider("mine", InLoop(), prices={"seconds": "0.001"})
        films = [gate.video(f"Waves {at}", user_id="ann", model="mine", duration=at) for at in (1, 2, 3)]
        began = time.monotonic()
        made = await asyncio.gather(*films)
        assert loops == [asyncio.get_running_loop()] * 3
        assert time.monotonic() - began < 10
        return made

    made = in_asyncio(source, work)
    assert [each.prompt for each in made] == ["Waves 1", "Waves 2", "Waves 3"]
    assert [each.cost for each in made] == [pytest.approx(cost) for cost in (0.001, 0.002, 0.003)]


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (("mine", object()), TypeError),
        (("mine", Films), TypeError),
        (("a/b", Films()), ValueError),
        (("", Films()), ValueError),
        (("openai", Films()), ValueError),
        (("sandbox", Films()), ValueError),
    ],
)
def test_what_cannot_be_registered(gate, arguments, kind):
    """What is no provider, or has no name of its own, is refused."""
    with pytest.raises(kind):
        gate.register_media_provider(*arguments)


@pytest.mark.parametrize("prices", [{"films": "1"}, {"seconds": "-1"}, {"seconds": "much"}])
def test_prices_that_are_none(gate, prices):
    """What is no price is refused."""
    with pytest.raises(ValueError, match=r"unit|amount"):
        gate.register_media_provider("mine", Films(), prices=prices)


def test_registering_again(gate, picture):
    """The last of the same names counts; several models stand beside each other."""
    first, second, other = Pictures(picture), Pictures(picture), Pictures(picture)
    for model, mine in (("a", first), ("a", second), ("b", other)):
        gate.register_media_provider("mine", mine, model=model, prices={"images": "0"})
    gate.image("Sea", user_id="ann", model="mine/a")
    gate.image("Sea", user_id="ann", model="mine")
    with pytest.raises(GateError):
        gate.image("Sea", user_id="ann", model="mine/c")

    assert (len(first.seen), len(second.seen), len(other.seen)) == (0, 1, 1)


def test_a_gate_must_be_opened(source):
    """An `LLMGate` that is not open says how to open it."""

    async def main():
        gate = LLMGate(source)
        with pytest.raises(RuntimeError, match="async with"):
            await gate.image("Sea", user_id="ann")
        with pytest.raises(RuntimeError, match="async with"):
            gate.register_media_provider("mine", Films())

    asyncio.run(main())
