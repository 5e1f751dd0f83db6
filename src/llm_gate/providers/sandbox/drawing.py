"""Pictures and short films that show what was asked for, and say on themselves that nobody made them.

The same words and the same seed give the same bytes. Sizes are in pixels.
"""

import colorsys
import hashlib
import io
import math
import struct
from collections.abc import Sequence
from typing import Literal

from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from llm_gate.domain.errors import InvalidRequest
from llm_gate.providers.sandbox.lettering import (
    LINE_HEIGHT,
    SMALLEST_FONT,
    Box,
    Colour,
    clamped,
    font_of,
    wrapped,
    write_into,
)

PictureFormat = Literal["png", "jpeg", "webp"]

MARK = "SYNTHETIC - LLM Gate sandbox"
"""The words that every picture carries."""

COMMENT = "synthetic: LLM Gate sandbox"
"""What every picture's own comment says."""

MAX_SIDE = 2048
FEWEST_FRAMES, MOST_FRAMES = 8, 24

_MAX_PIXELS = 64 * 1024 * 1024
_READ = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_KEPT: dict[str | None, PictureFormat] = {"JPEG": "jpeg", "WEBP": "webp"}
_WHITE, _INK, _BAR = (255, 255, 255), (17, 20, 28), (255, 196, 61)
_EXIF_DESCRIPTION = 0x010E
_FILM_COLOURS = 64


def draw_picture(prompt: str, *, width: int, height: int, seed: int, form: PictureFormat) -> bytes:
    """Return a picture of the given size with the prompt written on it."""
    picture = _painted(prompt, width, height, seed)
    draw = ImageDraw.Draw(picture)
    banner = _bottom_banner(draw, width, height, MARK)
    write_into(draw, prompt, _page(width, banner.top), _WHITE)
    return _saved(picture, form)


def draw_edit(
    images: Sequence[bytes],
    *,
    asked: str,
    size: tuple[int, int] | None = None,
    form: PictureFormat | None = None,
) -> bytes:
    """Return the first picture with a banner that says what was asked; further pictures are set into it, small.

    It keeps its size (down to MAX_SIDE) and its format where none is given.

    Raises:
        InvalidRequest: one of them is no picture that can be read.
    """
    picture, own_form = _opened(images[0], "image")
    if size is not None:
        picture = ImageOps.pad(picture, size, color=_INK)
    for place, data in enumerate(images[1:]):
        inset, _ = _opened(data, "image")
        _set_in(picture, inset, place)
    _top_banner(picture, asked)
    return _saved(picture, form or own_form)


def draw_face_swap(image: bytes, face: bytes, *, asked: str, form: PictureFormat | None = None) -> bytes:
    """Return the first picture with the second set into it, small, and a banner that says so.

    Raises:
        InvalidRequest: one of them is no picture that can be read.
    """
    picture, own_form = _opened(image, "image")
    inset, _ = _opened(face, "face")
    _set_in(picture, inset, 0)
    _top_banner(picture, asked)
    return _saved(picture, form or own_form)


def draw_film(
    prompt: str,
    *,
    width: int,
    height: int,
    frames: int,
    duration_s: float,
    seed: int,
    colour: Colour | None = None,
) -> bytes:
    """Return an animated GIF: the prompt, a bar that moves and the number of the frame.

    It has 8 to 24 frames and lasts `duration_s` seconds, to the hundredth of a second per frame.
    """
    frames = min(max(frames, FEWEST_FRAMES), MOST_FRAMES)
    scene = _painted(prompt, width, height, seed, colour)
    draw = ImageDraw.Draw(scene)
    banner = _bottom_banner(draw, width, height, MARK)
    counter_size = clamped(min(width, height) // 14, SMALLEST_FONT, 48)
    counter = font_of(counter_size)
    margin = max(2, min(width, height) // 24)
    track_height = max(4, height // 40)
    track = Box(
        left=margin,
        top=max(0, banner.top - margin - track_height),
        right=width - margin,
        bottom=max(1, banner.top - margin),
    )
    count_top = max(0, track.top - round(counter_size * LINE_HEIGHT) - margin // 2)
    write_into(draw, prompt, _page(width, count_top), _WHITE)
    draw.rectangle((track.left, track.top, max(track.left, track.right), track.bottom), fill=_INK)
    # One palette for all frames, so that only what moves is stored.
    draw.point((0, 0), fill=_BAR)
    flat = scene.quantize(_FILM_COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    bar_colour, ink = _nearest(flat, _BAR), _nearest(flat, _WHITE)
    drawn = []
    for number in range(frames):
        frame = flat.copy()
        pen = ImageDraw.Draw(frame)
        pen.fontmode = "1"
        width_now = max(1, (track.width * (number + 1)) // frames)
        pen.rectangle((track.left, track.top, track.left + width_now, track.bottom), fill=bar_colour)
        pen.text((margin, count_top), f"frame {number + 1} of {frames}", font=counter, fill=ink)
        drawn.append(frame)
    out = io.BytesIO()
    lasts_ms = max(20, round(duration_s * 100 / frames) * 10)
    drawn[0].save(
        out,
        "GIF",
        save_all=True,
        append_images=drawn[1:],
        duration=lasts_ms,
        loop=0,
        comment=COMMENT.encode(),
        optimize=False,
    )
    return out.getvalue()


def mean_colour(data: bytes) -> Colour:
    """Return the colour of a picture as a whole.

    Raises:
        InvalidRequest: it is no picture that can be read.
    """
    picture, _ = _opened(data, "image")
    red, green, blue = picture.convert("RGB").resize((1, 1), Image.Resampling.BOX).tobytes()[:3]
    return red, green, blue


def picture_type(form: PictureFormat) -> str:
    """Return the media type of a format."""
    return f"image/{form}"


def _painted(prompt: str, width: int, height: int, seed: int, colour: Colour | None = None) -> Image.Image:
    """Return the ground: one colour out of the words and the seed, and some discs of colours near it."""
    digest = hashlib.sha256(f"{seed}\0{prompt}".encode(errors="replace")).digest()
    hue, light = digest[0] / 255, 0.34 + digest[1] / 255 * 0.12
    if colour is not None:
        hue, light, _ = colorsys.rgb_to_hls(*(part / 255 for part in colour))
        light = min(max(light, 0.2), 0.46)
    picture = Image.new("RGB", (width, height), _shade(hue, light))
    draw = ImageDraw.Draw(picture)
    for place in range(4):
        x, y, size, turn = digest[2 + place * 4 : 6 + place * 4]
        across, down = x * width // 255, y * height // 255
        radius = max(width, height) * (40 + size) // 700
        shade = _shade(hue + (turn - 128) / 1800, light + (turn % 9 - 4) / 90)
        draw.ellipse((across - radius, down - radius, across + radius, down + radius), fill=shade)
    return picture


def _shade(hue: float, light: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue % 1.0, light, 0.42)
    return round(red * 255), round(green * 255), round(blue * 255)


def _page(width: int, bottom: int) -> Box:
    margin = max(1, min(width, max(bottom, 1)) // 16)
    return Box(
        left=margin,
        top=margin,
        right=max(margin + 1, width - margin),
        bottom=max(margin + 1, bottom - margin),
    )


def _bottom_banner(draw: ImageDraw.ImageDraw, width: int, height: int, words: str) -> Box:
    """Write the words into a dark strip at the bottom, as large as they fit, and return where it is."""
    size = clamped(min(height // 16, round(width * 0.92 / (len(words) * 0.62))), SMALLEST_FONT, 64)
    font = font_of(size)
    lines = wrapped(words, font, max(1, width - size), most=3).lines
    step = round(size * LINE_HEIGHT)
    strip = Box(left=0, top=max(0, height - step * len(lines) - size // 2), right=width, bottom=height)
    draw.rectangle((0, strip.top, width, height), fill=_INK)
    for number, line in enumerate(lines):
        left = (width - font.getlength(line)) / 2
        draw.text((max(0.0, left), strip.top + size // 4 + number * step), line, font=font, fill=_WHITE)
    return strip


def _top_banner(picture: Image.Image, asked: str) -> None:
    """Lay a strip over the top of a picture: that it is synthetic, and what was asked."""
    width, height = picture.size
    size = clamped(min(width, height) // 22, SMALLEST_FONT, 44)
    font = font_of(size)
    room = max(1, width - size)
    lines = wrapped(MARK, font, room, most=3).lines
    marked = len(lines)
    lines += wrapped(asked, font, room, most=max(1, round(height * 0.3) // round(size * LINE_HEIGHT))).lines
    step = round(size * LINE_HEIGHT)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, width, min(height, step * len(lines) + size // 2)), fill=_INK)
    for number, line in enumerate(lines):
        draw.text(
            (size // 2, size // 4 + number * step), line, font=font, fill=_BAR if number < marked else _WHITE
        )


def _set_in(picture: Image.Image, inset: Image.Image, place: int) -> None:
    """Set a picture into another, small and framed, from the lower right corner to the left."""
    width, height = picture.size
    side = max(1, min(width, height) // 4)
    small = ImageOps.contain(inset.convert("RGB"), (side, side))
    margin = max(1, side // 12)
    left = width - margin - (side + margin) * (place + 1) + (side - small.width)
    top = height - margin - small.height
    framed = ImageOps.expand(small, border=max(1, side // 40), fill=_BAR)
    picture.paste(framed, (left, top))


def _opened(data: bytes, param: str) -> tuple[Image.Image, PictureFormat]:
    """Read a picture, turned as its camera was, at most MAX_SIDE long; returns it and the format to keep."""
    try:
        with Image.open(io.BytesIO(data), formats=_READ) as found:
            if found.width * found.height > _MAX_PIXELS:
                raise InvalidRequest(f"{param}: the picture is too large", param=param, code="invalid_image")
            form = _KEPT.get(found.format, "png")
            found.draft("RGB", (MAX_SIDE, MAX_SIDE))
            picture = ImageOps.exif_transpose(found)
            picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
        OverflowError,
    ):
        raise InvalidRequest(
            f"{param}: not a picture the sandbox can read", param=param, code="invalid_image"
        ) from None
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture, form


def _saved(picture: Image.Image, form: PictureFormat) -> bytes:
    out = io.BytesIO()
    if form == "png":
        said = PngInfo()
        said.add_text("Comment", COMMENT)
        picture.save(out, "PNG", pnginfo=said, compress_level=1)
    elif form == "jpeg":
        if picture.mode == "RGBA":
            ground = Image.new("RGB", picture.size, _WHITE)
            ground.paste(picture, mask=picture.getchannel("A"))
            picture = ground
        picture.save(out, "JPEG", quality=88, comment=COMMENT.encode())
    else:
        exif = Image.Exif()
        exif[_EXIF_DESCRIPTION] = COMMENT
        picture.save(out, "WEBP", quality=85, method=0, exif=exif)
    return out.getvalue()


def _nearest(picture: Image.Image, colour: Colour) -> int:
    """Return the place in a picture's palette that is nearest to a colour."""
    palette = picture.getpalette() or []
    places = range(len(palette) // 3)
    return min(places, key=lambda place: math.dist(palette[place * 3 : place * 3 + 3], colour))
