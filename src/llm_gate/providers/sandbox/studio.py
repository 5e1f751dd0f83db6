"""The sandbox's own side of media: answers orders for pictures, sounds, transcripts and films as a vendor would.

Nothing is remembered. The id of a film holds what was asked for and when, so that every question about it can be
answered from the id alone; a film that was called off is therefore made all the same, if anybody asks for it.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, structs

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.provider import HttpRequest, LocalReply
from llm_gate.providers.sandbox.control import CONTROL_HEADER, read_control
from llm_gate.providers.sandbox.drawing import (
    FEWEST_FRAMES,
    MAX_SIDE,
    MOST_FRAMES,
    PictureFormat,
    draw_edit,
    draw_face_swap,
    draw_film,
    draw_picture,
    mean_colour,
)
from llm_gate.providers.sandbox.lettering import Colour
from llm_gate.providers.sandbox.sound import make_speech, read_speech, read_wav_duration

T = TypeVar("T", bound=Struct)

MOST_PICTURES = 4
QUEUED_S = 0.3
FILM_S = 2.0
"""How long a film takes where the control header does not say, in seconds."""

FAIL_WORD = "[fail]"
"""A prompt that holds this word becomes a film that fails."""

_SHOWN_PROMPT = 300
_FRAMES_PER_S = 4
_FILM = re.compile(r"/videos(?:/(?P<id>[A-Za-z0-9_-]{1,8000})(?P<content>/content)?)?")
_JSON = {"content-type": "application/json"}

Side = Annotated[int, Meta(ge=1, le=MAX_SIDE)]
Byte = Annotated[int, Meta(ge=0, le=255)]
FilmSeconds = Annotated[int, Meta(ge=1, le=60)]


class PictureOrder(Struct, frozen=True, kw_only=True):
    """An order for pictures; the second has the seed that follows, and so on."""

    model: str
    prompt: str
    width: Side
    height: Side
    seed: int = 0
    n: Annotated[int, Meta(ge=1, le=MOST_PICTURES)] = 1
    format: PictureFormat = "png"


class EditOrder(Struct, frozen=True, kw_only=True):
    """An order to change a picture; pictures are base64. Without a size or format it keeps its own."""

    model: str
    images: Annotated[tuple[bytes, ...], Meta(min_length=1, max_length=16)]
    asked: str
    width: Side | None = None
    height: Side | None = None
    n: Annotated[int, Meta(ge=1, le=MOST_PICTURES)] = 1
    format: PictureFormat | None = None


class SwapOrder(Struct, frozen=True, kw_only=True):
    """An order to put a face into a picture; both are base64."""

    model: str
    image: bytes
    face: bytes
    asked: str
    n: Annotated[int, Meta(ge=1, le=MOST_PICTURES)] = 1
    format: PictureFormat | None = None


class MadePicture(Struct, frozen=True, kw_only=True):
    """One picture of an answer, in base64."""

    b64_json: bytes
    seed: int | None = None


class MadePictures(Struct, frozen=True, kw_only=True):
    """The answer to orders for pictures."""

    model: str
    data: tuple[MadePicture, ...]
    synthetic: Literal[True]


class SpeechOrder(Struct, frozen=True, kw_only=True):
    """An order to read out a text."""

    model: str
    input: str
    voice: str = ""
    speed: Annotated[float, Meta(ge=0.25, le=4)] = 1.0


class HearingOrder(Struct, frozen=True, kw_only=True):
    """An order to write down a recording, in base64; its length in seconds, where it is known."""

    model: str
    file: bytes
    type: str
    duration_s: float | None = None


class HeardWord(Struct, frozen=True, kw_only=True):
    """A word and when it is said, in seconds."""

    start: float
    end: float
    text: str


class Heard(Struct, frozen=True, kw_only=True):
    """The answer to an order for a transcript. `is_own` tells that the sandbox made the recording itself."""

    model: str
    text: str
    is_own: bool
    synthetic: Literal[True]
    duration_s: float | None = None
    words: tuple[HeardWord, ...] = ()


class FilmOrder(Struct, frozen=True, kw_only=True):
    """An order for a film; `unheeded` are the names of what was asked besides and will not be done."""

    model: str
    prompt: str
    width: Side
    height: Side
    duration_s: FilmSeconds
    seed: int = 0
    image: bytes | None = None
    unheeded: tuple[str, ...] = ()


class Film(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is known of a film, as its id holds it. It is ready `takes_s` after `start_s` (seconds since 1970)."""

    words: Annotated[str, Meta(max_length=2 * _SHOWN_PROMPT)]
    width: Side
    height: Side
    duration_s: FilmSeconds
    seed: int
    start_s: float
    takes_s: Annotated[float, Meta(ge=0, le=60)]
    fails: bool = False
    colour: tuple[Byte, Byte, Byte] | None = None


class FilmState(Struct, frozen=True, kw_only=True):
    """How a film stands; `progress` is a percentage."""

    id: str
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    synthetic: Literal[True]
    progress: float = 0.0
    error: str | None = None


def respond_media(request: HttpRequest, now_s: float) -> LocalReply | None:
    """Answer an order for media; None where the address is of something else. The time is in seconds since 1970.

    Pictures are drawn while the answer is read, one at a time. The delay that the control header asks for is how long
    a film takes to be made; of anything else it is how late the answer comes.

    Raises:
        InvalidRequest: the order cannot be read or carried out.
    """
    url = request.url
    found = _FILM.fullmatch(url[start:]) if (start := url.rfind("/videos")) >= 0 else None
    if found is not None:
        return _film(request, found, now_s)
    made = _made(request)
    delay_ms = read_control(request.headers.get(CONTROL_HEADER)).delay_ms
    return None if made is None else structs.replace(made, delay_s=delay_ms / 1000)


def _made(request: HttpRequest) -> LocalReply | None:
    url = request.url
    if url.endswith("/images/generations"):
        order = _read(request, PictureOrder)
        return LocalReply(status=200, headers=_JSON, chunks=_pictures(order))
    if url.endswith("/images/edits"):
        edit = _read(request, EditOrder)
        size = (edit.width, edit.height) if edit.width and edit.height else None
        data = draw_edit(edit.images, asked=edit.asked, size=size, form=edit.format)
        return _answer(_repeated(edit.model, data, edit.n))
    if url.endswith("/images/face-swaps"):
        swap = _read(request, SwapOrder)
        data = draw_face_swap(swap.image, swap.face, asked=swap.asked, form=swap.format)
        return _answer(_repeated(swap.model, data, swap.n))
    if url.endswith("/audio/speech"):
        speech = _read(request, SpeechOrder)
        data = make_speech(speech.input, voice=speech.voice, speed=speech.speed)
        return LocalReply(status=200, headers={"content-type": "audio/wav"}, chunks=iter((data,)))
    if url.endswith("/audio/transcriptions"):
        return _answer(_heard(_read(request, HearingOrder)))
    return None


def _read(request: HttpRequest, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(request.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the sandbox cannot read the order: {error}") from None


def _answer(body: Struct) -> LocalReply:
    return LocalReply(status=200, headers=_JSON, chunks=iter((msgspec.json.encode(body),)))


def _pictures(order: PictureOrder) -> Iterator[bytes]:
    yield b'{"synthetic":true,"model":' + msgspec.json.encode(order.model) + b',"data":['
    for number in range(order.n):
        seed = order.seed + number
        data = draw_picture(
            order.prompt, width=order.width, height=order.height, seed=seed, form=order.format
        )
        made = msgspec.json.encode(MadePicture(b64_json=data, seed=seed))
        yield b"," + made if number else made
    yield b"]}"


def _repeated(model: str, data: bytes, count: int) -> MadePictures:
    return MadePictures(model=model, data=(MadePicture(b64_json=data),) * count, synthetic=True)


def _heard(order: HearingOrder) -> Heard:
    lasts_s = read_wav_duration(order.file)
    text = read_speech(order.file)
    if text is None:
        told = (
            "This is a synthetic transcript: the LLM Gate sandbox does not listen to recordings. "
            f"It was given {len(order.file)} bytes of {order.type}."
        )
        known_s = order.duration_s if lasts_s is None else lasts_s
        return Heard(model=order.model, text=told, is_own=False, synthetic=True, duration_s=known_s)
    letter_s = (lasts_s or 0.0) / max(1, len(text))
    words = tuple(
        HeardWord(
            start=round(word.start() * letter_s, 3), end=round(word.end() * letter_s, 3), text=word.group()
        )
        for word in re.finditer(r"\S+", text)
    )
    return Heard(model=order.model, text=text, is_own=True, synthetic=True, duration_s=lasts_s, words=words)


def _film(request: HttpRequest, found: re.Match[str], now_s: float) -> LocalReply:
    name = found["id"]
    if name is None:
        film = _begun(_read(request, FilmOrder), request, now_s)
        return _answer(_state(_id_of(film), film, now_s))
    film = read_film(name)
    state = _state(name, film, now_s)
    if request.method == "DELETE":
        return _answer(FilmState(id=name, status="cancelled", synthetic=True))
    if found["content"] is None:
        return _answer(state)
    if state.status != "succeeded":
        raise InvalidRequest(
            f"the film is not there: it is {state.status}", param="id", code="film_not_ready"
        )
    frames = min(max(film.duration_s * _FRAMES_PER_S, FEWEST_FRAMES), MOST_FRAMES)
    data = draw_film(
        film.words,
        width=film.width,
        height=film.height,
        frames=frames,
        duration_s=film.duration_s,
        seed=film.seed,
        colour=film.colour,
    )
    return LocalReply(status=200, headers={"content-type": "image/gif"}, chunks=iter((data,)))


def _begun(order: FilmOrder, request: HttpRequest, now_s: float) -> Film:
    delay_ms = read_control(request.headers.get(CONTROL_HEADER)).delay_ms
    # A letter is one character here and up to four bytes in the id, which has to stay short.
    words = order.prompt[:_SHOWN_PROMPT] + ("..." if len(order.prompt) > _SHOWN_PROMPT else "")
    colour: Colour | None = None
    if order.image is not None:
        colour = mean_colour(order.image)
        words += "\n\n(in the colour of the given picture)"
    if order.unheeded:
        words += f"\n\n(not carried out: {', '.join(order.unheeded)[:200]})"
    return Film(
        words=words,
        width=order.width,
        height=order.height,
        duration_s=order.duration_s,
        seed=order.seed,
        start_s=round(now_s, 3),
        takes_s=delay_ms / 1000 if delay_ms else FILM_S,
        fails=FAIL_WORD in order.prompt,
        colour=colour,
    )


def _state(name: str, film: Film, now_s: float) -> FilmState:
    since_s = now_s - film.start_s
    if since_s >= film.takes_s:
        error = None
        if film.fails:
            error = f"The sandbox failed to make the film, as {FAIL_WORD} in its prompt asked (synthetic)."
        status: Literal["failed", "succeeded"] = "failed" if film.fails else "succeeded"
        return FilmState(id=name, status=status, synthetic=True, progress=100.0, error=error)
    if since_s < min(QUEUED_S, film.takes_s):
        return FilmState(id=name, status="queued", synthetic=True)
    progress = round(100 * since_s / film.takes_s, 1)
    return FilmState(id=name, status="running", synthetic=True, progress=progress)


def _id_of(film: Film) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(film)).decode().rstrip("=")


def read_film(name: str) -> Film:
    """Read a film's id, which holds all that is known of it.

    Raises:
        InvalidRequest: the sandbox never gave such an id.
    """
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)), type=Film)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError):
        raise InvalidRequest("id: the sandbox knows no such film", param="id", code="unknown_film") from None
