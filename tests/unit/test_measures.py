"""What the bytes of media tell: right facts of whole ones, nothing of broken ones, and never a failure."""

import asyncio
import io
import struct
import time
import wave
import zlib
from random import Random

import pytest
from PIL import Image

from llm_gate.domain.ports import PictureFacts
from llm_gate.measures import MAX_PIXELS, BytesMeasures, measure_picture, measure_sound
from support.pictures import picture, recording

TYPES = {
    "PNG": "image/png",
    "JPEG": "image/jpeg",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
MODES = [("PNG", mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")]
MODES += [("JPEG", "L"), ("JPEG", "CMYK"), ("WEBP", "RGBA"), ("GIF", "P")]
FLIPS = 200


def noise(width, height, kind, **options):
    """Return a picture of noise, in which every byte of the file matters."""
    pixels = Random(f"{kind}{width}").randbytes(width * height * 3)  # noqa: S311 - no secret
    out = io.BytesIO()
    Image.frombytes("RGB", (width, height), pixels).save(out, kind, **options)
    return out.getvalue()


def animation(kind, frames=5, duration_ms=200):
    """Return an animation whose frames differ."""
    out = io.BytesIO()
    images = [Image.new("RGB", (40, 30), (8 * index, 255 - 8 * index, 0)) for index in range(frames)]
    images[0].save(out, kind, save_all=True, append_images=images[1:], duration=duration_ms)
    return out.getvalue()


def chunk(name, data):
    """Return a piece of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def bomb(width, height, data=b""):
    """Return a small PNG that says it is large; `data` is what unfolds."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def sound(seconds, rate=8_000, channels=1, width=2):
    """Return a WAV of noise."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(Random(rate).randbytes(round(seconds * rate) * channels * width))  # noqa: S311 - no secret
    return out.getvalue()


def mp3(frames):
    """Return an MP3 of silent frames: MPEG 1, layer III, 128 kbit/s, 44,100 Hz, 1152 samples each."""
    return (b"\xff\xfb\x90\x00" + b"\0" * 413) * frames


WHOLE = {
    **{kind: noise(61, 47, kind) for kind in TYPES},
    "JPEG, progressive": noise(61, 47, "JPEG", progressive=True),
    "WEBP, lossless": noise(61, 47, "WEBP", lossless=True),
    "GIF, animated": animation("GIF"),
    "WEBP, animated": animation("WEBP"),
    "PNG, animated": animation("PNG"),
}
SOUNDS = {"WAV": recording(2), "WAV, stereo": sound(1.5, 44_100, 2), "MP3": mp3(100)}


def flipped(data, chance, most=4):
    """Return bytes in which a few bits are turned."""
    torn = bytearray(data)
    for _ in range(chance.randint(1, most)):
        torn[chance.randrange(len(torn))] ^= 1 << chance.randrange(8)
    return bytes(torn)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (1_025, 3)])
def test_a_whole_picture_is_measured(kind, size):
    """Type, width and height are those of the file; a still picture lasts no time."""
    facts = PictureFacts(type=TYPES[kind], width=size[0], height=size[1], duration_s=0.0)
    assert measure_picture(noise(*size, kind)) == facts


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_every_way_to_store_colours_is_read(kind, mode):
    """Grey, indexed, transparent and print colours are pictures as well."""
    out = io.BytesIO()
    Image.new(mode, (20, 10)).save(out, kind)
    facts = measure_picture(out.getvalue())
    assert (facts.type, facts.width, facts.height) == (TYPES[kind], 20, 10)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
@pytest.mark.parametrize(("frames", "duration_ms"), [(2, 40), (5, 200), (30, 100)])
def test_an_animation_lasts_as_long_as_its_frames(kind, frames, duration_ms):
    """The time of all frames is added up."""
    facts = measure_picture(animation(kind, frames, duration_ms))
    assert facts.duration_s == pytest.approx(frames * duration_ms / 1000)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_picture_is_none_or_what_it_was(kind, tenth):
    """A picture of which a part is missing is refused, unless what is missing says nothing (GIF and animations)."""
    data = WHOLE[kind]
    whole, cut = measure_picture(data), measure_picture(data[: len(data) * tenth // 10])
    if "animated" in kind or kind in {"GIF", "WEBP"}:
        assert cut is None or (cut.type, cut.width, cut.height) == (whole.type, whole.width, whole.height)
    else:
        assert cut is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "JPEG, progressive", "WEBP, lossless"])
@pytest.mark.parametrize("missing", [64, 500, 1_500])
def test_a_picture_without_its_end_is_none(kind, missing):
    """Even a small piece of the pixels that is missing is noticed."""
    assert measure_picture(WHOLE[kind][:-missing]) is None


@pytest.mark.parametrize("kind", WHOLE)
def test_turned_bits_raise_nothing(kind):
    """Whatever bit of a picture is turned, it is a picture of bounded size, or none."""
    chance = Random(kind)  # noqa: S311 - no secret
    for _ in range(FLIPS):
        facts = measure_picture(flipped(WHOLE[kind], chance))
        if facts is not None:
            assert facts.width * facts.height <= MAX_PIXELS
            assert facts.width > 0
            assert facts.height > 0
            assert 0 <= facts.duration_s < float("inf")


@pytest.mark.parametrize("kind", WHOLE)
def test_turned_bits_of_the_head_raise_nothing(kind):
    """The head, where the sizes stand, may be torn as well."""
    chance, data = Random(kind), WHOLE[kind]  # noqa: S311 - no secret
    for _ in range(FLIPS):
        facts = measure_picture(flipped(data[:64], chance) + data[64:])
        assert facts is None or facts.width * facts.height <= MAX_PIXELS


@pytest.mark.parametrize("kind", WHOLE)
def test_a_picture_after_rubbish_is_none_and_before_rubbish_is_one(kind):
    """What does not begin like a picture is none; what follows one does no harm."""
    data = WHOLE[kind]
    assert measure_picture(b"hello" + data) is None
    assert measure_picture(data + b"hello" * 100) == measure_picture(data)


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"\0",
            b"hello world",
            b"<html></html>",
            b"\x89PNG\r\n\x1a\n",
            b"\xff\xd8\xff",
            b"GIF89a",
            b"BM",
        ),
        *(b"RIFF\0\0\0\0WEBP", b"II*\0", b"MM\0*", b"II*\0\x08\0\0\0", b"\0" * 5_000, b"\xff" * 5_000),
        *(
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"%PDF-1.7\n",
            b"%!PS-Adobe-3.0 EPSF-3.0\n",
            b"P6 9 9 255 ",
        ),
        *(recording(), b"\x89PNG\r\n\x1a\n" + b"\0" * 1_000, b"\xff\xd8\xff\xe0" + b"\xff" * 1_000),
    ],
)
def test_what_is_no_picture_is_none(data):
    """Text, sounds, other documents and mere beginnings are no pictures."""
    assert measure_picture(data) is None


@pytest.mark.parametrize(
    "size", [(30_000, 30_000), (2**31 - 1, 1), (1, MAX_PIXELS + 1), (2**31 - 1, 2**31 - 1)]
)
@pytest.mark.parametrize("data", [b"", bytes(1_000_000)])
def test_a_bomb_is_none_at_once(size, data):
    """A picture that says it is beyond all measure is never unfolded."""
    started = time.perf_counter()
    assert measure_picture(bomb(*size, data)) is None
    assert time.perf_counter() - started < 1.0


@pytest.mark.parametrize("kind", ["GIF", "BMP", "JPEG", "TIFF"])
def test_bombs_of_other_kinds_are_none(kind):
    """A head that says 65,000 pixels square is refused whatever the kind."""
    data = bytearray(noise(64, 64, kind))
    low, high = struct.pack("<H", 65_000), struct.pack(">H", 65_000)
    if kind == "GIF":
        data[6:10] = low * 2
    elif kind == "BMP":
        data[18:26] = struct.pack("<II", 65_000, 65_000)
    elif kind == "JPEG":
        start = data.index(b"\xff\xc0")
        data[start + 5 : start + 9] = high * 2
    else:
        data = bytearray(
            bytes(data).replace(struct.pack("<HHII", 256, 4, 1, 64), struct.pack("<HHII", 256, 4, 1, 65_000))
        )
        data = bytearray(
            bytes(data).replace(struct.pack("<HHII", 257, 4, 1, 64), struct.pack("<HHII", 257, 4, 1, 65_000))
        )
    assert measure_picture(bytes(data)) is None


def test_the_largest_picture_is_measured():
    """What is just within the bound is taken."""
    out = io.BytesIO()
    Image.new("1", (8_192, MAX_PIXELS // 8_192)).save(out, "PNG")
    facts = measure_picture(out.getvalue())
    assert MAX_PIXELS - 8_192 < facts.width * facts.height <= MAX_PIXELS


@pytest.mark.parametrize("seconds", [0.01, 0.5, 1, 61.25])
@pytest.mark.parametrize(
    ("rate", "channels", "width"), [(8_000, 1, 2), (44_100, 2, 2), (16_000, 1, 1), (48_000, 2, 3)]
)
def test_a_recording_is_measured(seconds, rate, channels, width):
    """The length of a WAV is that of its samples, to a hundredth of a second."""
    assert measure_sound(sound(seconds, rate, channels, width)) == pytest.approx(seconds, abs=0.01)


def test_an_mp3_is_measured():
    """The length of an MP3 is that of its frames."""
    assert measure_sound(mp3(200)) == pytest.approx(200 * 1152 / 44_100, rel=0.05)


@pytest.mark.parametrize("kind", SOUNDS)
@pytest.mark.parametrize("tenth", range(10))
def test_a_cut_recording_raises_nothing(kind, tenth):
    """A recording of which a part is missing lasts no longer than it did, or nobody knows how long."""
    data = SOUNDS[kind]
    whole, cut = measure_sound(data), measure_sound(data[: len(data) * tenth // 10])
    assert cut is None or 0 < cut <= whole * 1.01


@pytest.mark.parametrize("kind", SOUNDS)
def test_turned_bits_of_a_recording_raise_nothing(kind):
    """Whatever bit is turned, the length is a positive number, or unknown."""
    chance, data = Random(kind), SOUNDS[kind]  # noqa: S311 - no secret
    for number in range(FLIPS):
        torn = flipped(data[:60], chance) + data[60:] if number % 2 else flipped(data, chance)
        lasts_s = measure_sound(torn)
        assert lasts_s is None or 0 < lasts_s < float("inf")


HEADS = (
    *(
        b"",
        b"\0",
        b"hello",
        b"RIFF",
        b"RIFF\xff\xff\xff\xffWAVE",
        b"ID3",
        b"ID3\x04\0\0\x7f\x7f\x7f\x7f",
        b"fLaC",
    ),
    *(
        b"fLaC\0\0\0\x22" + b"\0" * 34,
        b"OggS" + b"\0" * 60,
        b"OggS\0\x02" + b"\xff" * 60,
    ),
    *(
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\0ftypM4A " + b"\0" * 60,
        b"\0\0\0\x18ftypM4A \0\0\0\0M4A mp42\xff\xff\xff\xffmoov",
    ),
    *(
        b"FORM\0\0\0\0AIFFCOMM",
        b"0&\xb2u\x8ef\xcf\x11\xa6\xd9\0\xaa\0b\xcel" + b"\xff" * 60,
        b"\0" * 5_000,
        b"\xff" * 5_000,
    ),
    *(b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0" + b"\0" * 16 + b"data\x10\0\0\0" + b"\0" * 16, picture()),
)


@pytest.mark.parametrize("data", HEADS)
def test_what_is_no_recording_has_no_length(data):
    """Text, pictures and mere beginnings have no length that is known."""
    assert measure_sound(data) is None


@pytest.mark.parametrize("head", [one for one in HEADS if len(one) > 2])
def test_chance_after_a_head_raises_nothing(head):
    """Random bytes behind a head that promises a recording or a picture are a length or none, and no failure."""
    chance = Random(head)  # noqa: S311 - no secret
    for _ in range(20):
        data = head + chance.randbytes(chance.randrange(2_000))
        lasts_s = measure_sound(data)
        assert lasts_s is None or 0 < lasts_s < float("inf")
        assert measure_picture(data) is None or data.startswith(picture())


def test_many_are_measured_at_once():
    """In threads the facts are the same, whatever is measured beside them."""

    async def run():
        measures = BytesMeasures()
        pictures = asyncio.gather(*(measures.picture(noise(side, 9, "PNG")) for side in range(1, 21)))
        sounds = asyncio.gather(*(measures.sound(recording(length)) for length in range(1, 6)))
        return [facts.width for facts in await pictures], await sounds

    assert asyncio.run(run()) == (list(range(1, 21)), [pytest.approx(length) for length in range(1, 6)])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_an_animation_cut_at_any_byte_raises_nothing(kind):
    """However short an animation is cut, it is one of its size, or none."""
    data = animation(kind, frames=3)
    found = {measure_picture(data[:length]) for length in range(len(data))}
    assert {(facts.width, facts.height) for facts in found if facts is not None} <= {(40, 30)}


@pytest.mark.parametrize("tag", [256, 257])
@pytest.mark.parametrize("page", [0, 1])
def test_a_tiff_without_a_side_raises_nothing(tag, page):
    """A TIFF of which a page does not say its size raises nothing, and is none if that is the first."""
    out = io.BytesIO()
    pages = [Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), "red")]
    pages[0].save(out, "TIFF", save_all=True, append_images=pages[1:])
    pieces = out.getvalue().split(struct.pack("<HHI", tag, 4, 1))
    said = [struct.pack("<HHI", 250 if number == page else tag, 4, 1) for number in range(2)]
    assert len(pieces) == 3
    facts = measure_picture(pieces[0] + said[0] + pieces[1] + said[1] + pieces[2])
    assert facts is None or page == 1


def still_frames(side, frames):
    """Return a small GIF of many frames of one pixel on a large canvas."""
    head = b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\x09\x01\0\0\0\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    return head + frame * frames + b"\x3b"


def test_an_animation_that_unfolds_beyond_measure_takes_no_time():
    """Many frames on a large canvas are not unfolded one by one: 1.5 KB must not cost ten seconds."""
    data = still_frames(8_192, 60)
    assert len(data) < 2_000
    started = time.perf_counter()
    measure_picture(data)
    assert time.perf_counter() - started < 3.0
