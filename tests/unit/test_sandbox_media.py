"""Promises of the sandbox's media: real files of the right kind and size, which say of themselves that they are not."""

import base64
import io
import json
import time
import wave

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from PIL import Image

from llm_gate.catalog.loader import load_catalog
from llm_gate.domain.errors import (
    BadProviderResponse,
    InvalidRequest,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from llm_gate.domain.media import (
    FaceSwapRequest,
    ImageEditRequest,
    ImageRequest,
    Medium,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)
from llm_gate.domain.media_rules import fit
from llm_gate.domain.provider import Facts, HttpReply, HttpRequest, Send, Ticket
from llm_gate.measures import measure_picture, measure_sound
from llm_gate.providers.sandbox import provider
from llm_gate.providers.sandbox.drawing import COMMENT, draw_film, draw_picture
from llm_gate.providers.sandbox.lettering import font_of, wrapped
from llm_gate.providers.sandbox.media import NOTE
from llm_gate.providers.sandbox.sound import TITLE, make_speech, read_speech, read_wav_duration
from support.targets import make_target

NOW_S = 1_800_000_000.5
FACTS = Facts(now_s=NOW_S, token="0" * 32)
WORDS = "A lighthouse on a cliff at dusk"
HARD_TEXTS = (
    "",
    "\n\n\n",
    "x" * 30_000,
    "word " * 6_000,
    "line\n" * 3_000,
    "smile 😀👩‍👩‍👧 flag 🇩🇪",
    "שלום עולם مرحبا بالعالم",
    "e\u0301 \u200b\u202e\ufeff \0\x07\t tab",
    "你好世界" * 50,
)


def target(control=None, model="image"):
    return make_target(provider="sandbox", codecs=provider, model=model, control=control)


def answered(local):
    """Read what the sandbox answered, as the transport does."""
    reply = HttpReply(status=local.status, headers=local.headers, body=b"".join(local.chunks))
    if reply.status >= 300:
        raise provider.decode_error(reply, target())
    return reply


def play(exchanges, now_s=NOW_S):
    """Make the exchanges of one operation against the sandbox itself; returns the result and what was sent."""
    sent = []
    reply = None
    while True:
        try:
            wanted = exchanges.send(reply)
        except StopIteration as end:
            return end.value, sent
        assert isinstance(wanted, Send)
        sent.append(wanted)
        reply = answered(provider.respond(wanted.request, now_s))


def run(request, control=None):
    result, sent = play(provider.media[request.operation].run(request, target(control), FACTS))
    assert [one.is_paid for one in sent] == [True]
    return result


def image(prompt=WORDS, **fields):
    return ImageRequest(model="image", prompt=prompt, **fields)


def opened(data):
    picture = Image.open(io.BytesIO(data))
    picture.load()
    return picture


def a_picture(width=320, height=200, form="PNG", mode="RGB", colour="red"):
    out = io.BytesIO()
    Image.new(mode, (width, height), colour).save(out, form)
    return Medium(data=out.getvalue(), type=f"image/{form.lower()}")


# Pictures


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("size", [(1, 1), (64, 48), (1024, 1024), (1792, 1024), (33, 700)])
def test_a_picture_is_a_real_one_of_the_size_and_format_that_was_asked(form, size):
    """The bytes open as what they claim to be."""
    result = run(image(width=size[0], height=size[1], format=form))
    (made,) = result.pictures
    assert made.medium.type == f"image/{form}"
    picture = opened(made.medium.data)
    assert (picture.size, picture.format) == (size, form.upper())
    assert measure_picture(made.medium.data).type == f"image/{form}"
    assert result.notes == (NOTE,)
    assert result.usage is None


@pytest.mark.parametrize(
    ("form", "comment"),
    [
        ("png", lambda picture: picture.text["Comment"]),
        ("jpeg", lambda picture: picture.info["comment"].decode()),
        ("webp", lambda picture: picture.getexif()[0x010E]),
    ],
)
def test_a_picture_says_in_its_own_comment_that_it_is_synthetic(form, comment):
    """Whoever looks into the file learns where it comes from."""
    assert comment(opened(draw_picture(WORDS, width=256, height=256, seed=0, form=form))) == COMMENT


def white_pixels(data, box):
    part = opened(data).convert("L").crop(box)
    return sum(part.point(lambda value: 255 if value > 200 else 0).tobytes()) // 255


def test_a_picture_shows_its_prompt_and_the_mark():
    """The upper part has letters only where there is a prompt; the strip below always has."""
    told, blank = (draw_picture(text, width=512, height=512, seed=3, form="png") for text in (WORDS, ""))
    upper, strip = (0, 0, 512, 400), (0, 470, 512, 512)
    assert white_pixels(told, upper) > 1_000
    assert white_pixels(blank, upper) == 0
    assert white_pixels(told, strip) == white_pixels(blank, strip) > 200


def test_pictures_follow_from_words_and_seed_alone():
    """The same order gives the same bytes; another seed or prompt another picture."""
    first, again = run(image(n=3, seed=7)), run(image(n=3, seed=7))
    assert first == again
    made = [picture.medium.data for picture in first.pictures]
    assert len(set(made)) == 3
    assert [picture.seed for picture in first.pictures] == [7, 8, 9]
    assert run(image(seed=8)).pictures[0].medium.data == made[1]
    assert run(image("Another")).pictures[0].medium.data != run(image()).pictures[0].medium.data


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({}, (1024, 1024)),
        ({"aspect_ratio": "16:9"}, (1024, 576)),
        ({"aspect_ratio": "9:16", "resolution": "2K"}, (1152, 2048)),
        ({"width": 640}, (640, 640)),
        ({"width": 640, "height": 360, "aspect_ratio": "16:9", "resolution": "1K"}, (640, 360)),
    ],
)
def test_the_size_follows_from_what_is_said(fields, size):
    """Ratio, resolution or pixels, whichever is given."""
    assert opened(run(image(**fields)).pictures[0].medium.data).size == size


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"aspect_ratio": "wide"}, "aspect_ratio"),
        ({"aspect_ratio": "0:1"}, "aspect_ratio"),
        ({"resolution": "8K"}, "resolution"),
        ({"width": 640, "height": 360, "aspect_ratio": "1:1"}, "size"),
        ({"width": 640, "height": 360, "resolution": "2K"}, "size"),
        ({"format": "tiff"}, "format"),
        ({"seed": 2**70}, "seed"),
    ],
)
def test_what_contradicts_itself_or_is_unknown_is_refused(fields, param):
    """Nothing is guessed."""
    with pytest.raises(InvalidRequest) as caught:
        run(image(**fields))
    assert caught.value.param == param


@pytest.mark.parametrize("fields", [{"width": 4096, "height": 64}, {"n": 50}, {"n": 0}])
def test_the_sandbox_refuses_amounts_beyond_its_bounds(fields):
    """Also where the catalog did not say so before."""
    with pytest.raises(ProviderRejected, match="synthetic"):
        run(image(**fields))


def test_wishes_that_are_not_carried_out_are_named():
    """Also those that are a vendor's own fields."""
    result = run(image(quality="hd", steps=0, extra={"lora": "x", "prompt": "no"}))
    assert result.notes == (NOTE, "the sandbox did not carry out: quality, steps, lora, prompt")
    assert result.pictures == run(image()).pictures


@pytest.mark.parametrize("text", HARD_TEXTS)
@pytest.mark.parametrize("size", [(16, 16), (300, 40), (640, 640)])
def test_any_text_can_be_drawn(text, size):
    """Long, empty, without spaces, in any script: a picture comes of it, and soon."""
    began = time.process_time()
    data = draw_picture(text, width=size[0], height=size[1], seed=0, form="png")
    assert opened(data).size == size
    assert time.process_time() - began < 1.0


@given(text=st.text(max_size=400), width=st.integers(1, 400), most=st.integers(1, 6))
@settings(max_examples=50, deadline=None)
def test_lines_are_bounded_in_number_and_width(text, width, most):
    """A line is too wide only where one character alone is."""
    font = font_of(12)
    written = wrapped(text, font, width, most=most)
    assert 1 <= len(written.lines) <= most
    assert all(len(line) <= 1 or line == "..." or font.getlength(line) <= width + 1 for line in written.lines)
    assert not written.is_cut or written.lines[-1].endswith("...")


def test_wrapping_keeps_the_words_and_their_order():
    """What fits is there in full, and empty lines remain."""
    text = "one two three\n\nfour five"
    written = wrapped(text, font_of(12), 60, most=20)
    assert " ".join(written.lines).split() == text.split()
    assert "" in written.lines
    assert len(written.lines) > 3
    assert not written.is_cut


def test_accents_give_way_to_plain_letters():
    """The font has no accents: a letter without one says more than a box."""
    written = wrapped("Größe \u2013 e\u0301té", font_of(12), 400, most=1)
    assert written.lines == ("Grosse - ete",)


def test_drawing_takes_no_longer_than_a_blink():
    """A picture of 1024 pixels square takes about 50 ms; the bound leaves room for a busy machine."""
    taken = []
    for _ in range(5):
        began = time.process_time()
        draw_picture(WORDS, width=1024, height=1024, seed=0, form="png")
        taken.append(time.process_time() - began)
    assert min(taken) < 0.1


# Edits and face swaps


@pytest.mark.parametrize(
    ("form", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("JPEG", "RGB"), ("WEBP", "RGB")]
)
def test_an_edit_keeps_the_picture_under_a_banner(form, mode):
    """Below the banner nothing has changed; the banner says what was asked."""
    request = ImageEditRequest(model="m", images=(a_picture(form=form, mode=mode),), prompt="more sky")
    other = structs.replace(request, prompt="less sky")
    (made,) = run(request).pictures
    picture = opened(made.medium.data)
    assert (picture.size, picture.format) == ((320, 200), form)
    red, green, blue = picture.convert("RGB").getpixel((160, 190))
    assert red > 240
    assert green < 20
    assert blue < 20
    assert max(picture.convert("RGB").getpixel((310, 3))) < 40
    assert run(other).pictures[0].medium.data != made.medium.data


def test_an_edit_takes_size_format_mask_and_further_pictures():
    """The second picture stands in the lower right corner."""
    request = ImageEditRequest(
        model="m",
        images=(a_picture(), a_picture(colour="blue")),
        mask=a_picture(),
        task="inpaint",
        width=400,
        height=400,
        format="jpeg",
        n=2,
        style="vivid",
    )
    result = run(request)
    assert result.notes == (NOTE, "the sandbox did not carry out: style")
    assert len(result.pictures) == 2
    picture = opened(result.pictures[0].medium.data)
    assert (picture.size, picture.format) == ((400, 400), "JPEG")
    assert picture.getpixel((345, 370))[2] > 200


def test_a_face_swap_sets_the_face_into_the_picture():
    """The face is there, small; the picture keeps its size."""
    request = FaceSwapRequest(
        model="m", image=a_picture(), face=a_picture(100, 100, colour="blue"), face_index=1, gender="female"
    )
    result = run(request)
    assert result.notes == (NOTE,)
    picture = opened(result.pictures[0].medium.data)
    assert picture.size == (320, 200)
    assert picture.convert("RGB").getpixel((290, 170)) == (0, 0, 255)
    assert picture.convert("RGB").getpixel((10, 190)) == (255, 0, 0)


@pytest.mark.parametrize("broken", [b"", b"GIF89a", b"no picture", a_picture().data[:60]])
def test_what_is_no_picture_is_refused(broken):
    """Nothing comes of bytes that cannot be read."""
    medium = Medium(data=broken, type="image/png")
    with pytest.raises(ProviderRejected) as caught:
        run(ImageEditRequest(model="m", images=(medium,), prompt="p"))
    assert caught.value.param == "image"
    with pytest.raises(ProviderRejected) as caught:
        run(FaceSwapRequest(model="m", image=a_picture(), face=medium))
    assert caught.value.param == "face"


def test_a_large_picture_is_made_smaller():
    """What the sandbox returns is bounded, whatever it was given."""
    result = run(ImageEditRequest(model="m", images=(a_picture(3000, 1500),), prompt="p"))
    assert opened(result.pictures[0].medium.data).size == (2048, 1024)


# Speech and transcripts


def test_speech_is_a_real_recording():
    """One channel of 16 bits at 24 kHz, 60 ms a character, with tones in it."""
    result = run(SpeechRequest(model="m", text="Hello world"))
    assert (result.audio.type, result.notes) == ("audio/wav", (NOTE,))
    with wave.open(io.BytesIO(result.audio.data)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 24_000)
        assert sound.getnframes() == 11 * 1_440
        assert any(sound.readframes(1_440))
    assert result.duration_s == pytest.approx(0.66)
    assert measure_sound(result.audio.data) == pytest.approx(0.66, abs=0.01)


@given(text=st.text(max_size=200))
@settings(max_examples=50, deadline=None)
def test_the_text_can_be_read_back_out_of_the_recording(text):
    """Whatever it is made of, the last character included."""
    data = make_speech(text, speed=4)
    assert read_speech(data) == text
    with wave.open(io.BytesIO(data)) as sound:
        assert sound.getnframes() / 24_000 == pytest.approx(read_wav_duration(data))


def test_a_long_text_is_kept_whole_though_its_sound_ends():
    """The tones last a minute at most."""
    text = "long " * 5_000
    data = make_speech(text)
    assert read_wav_duration(data) == pytest.approx(60.0)
    assert read_speech(data) == text


def test_voice_and_speed_are_heard():
    """Another voice sounds different; twice the speed takes half the time."""
    plain = run(SpeechRequest(model="m", text="Hello")).audio.data
    assert run(SpeechRequest(model="m", text="Hello", voice="deep")).audio.data != plain
    assert run(SpeechRequest(model="m", text="Hello", speed=2.0)).duration_s == pytest.approx(0.15)
    notes = run(SpeechRequest(model="m", text="Hello", emotion="glad")).notes
    assert notes == (NOTE, "the sandbox did not carry out: emotion")


def test_speech_in_another_format_or_beyond_all_speed_is_refused():
    """No file is called what it is not."""
    with pytest.raises(InvalidRequest):
        run(SpeechRequest(model="m", text="Hello", format="mp3"))
    with pytest.raises(ProviderRejected):
        run(SpeechRequest(model="m", text="Hello", speed=100.0))


def heard(data, **fields):
    audio = Medium(data=data, type="audio/wav")
    return run(TranscriptionRequest(model="m", audio=audio, **fields))


def test_a_transcript_of_the_sandboxs_own_speech_is_its_text():
    """What was spoken offline can be written down offline."""
    result = heard(make_speech("Guten Tag, Welt"), timestamps=("segment", "word"), language="de")
    assert (result.text, result.language, result.notes) == ("Guten Tag, Welt", "de", (NOTE,))
    assert result.duration_s == pytest.approx(0.9)
    assert [word.text for word in result.words] == ["Guten", "Tag,", "Welt"]
    assert [word.start_s for word in result.words] == pytest.approx([0.0, 0.36, 0.66])
    (segment,) = result.segments
    assert (segment.start_s, segment.end_s) == (0.0, pytest.approx(0.9))


def plain_wav():
    out = io.BytesIO()
    with wave.open(out, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8_000)
        sound.writeframes(bytes(8_000))
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "lasts_s"),
    [
        (plain_wav(), 0.5),
        (make_speech("Hello").replace(TITLE.encode(), b"X" * len(TITLE)), 0.3),
        (b"ID3 not a wav", 7.0),
        (b"", 7.0),
    ],
)
def test_of_any_other_recording_the_sandbox_says_that_it_does_not_listen(data, lasts_s):
    """It makes nothing up."""
    result = heard(data, timestamps=("word",), duration_s=7.0)
    assert "does not listen" in result.text
    assert "synthetic" in result.text
    assert (result.words, result.duration_s, result.notes) == ((), lasts_s, (NOTE,))


@given(data=st.binary(max_size=120), cut=st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_broken_recordings_are_read_without_harm(data, cut):
    """Whatever stands in a head, the answer is a text, a length, or none."""
    for broken in (b"RIFF\0\0\0\0WAVE" + data, make_speech("Hello")[:cut]):
        assert isinstance(read_speech(broken), str | None)
        lasts_s = read_wav_duration(broken)
        assert lasts_s is None or lasts_s >= 0


# Films


def film(prompt=WORDS, control=None, now_s=NOW_S, **fields):
    videos = provider.jobs["video"]
    request = VideoRequest(model="video", prompt=prompt, **fields)
    ticket, sent = play(videos.submit(request, target(control, "video"), FACTS), now_s)
    assert [one.is_paid for one in sent] == [True]
    return ticket


def look(ticket, now_s):
    return play(provider.jobs["video"].look(ticket, target(model="video"), FACTS), now_s)[0]


def collect(ticket, now_s=NOW_S + 5):
    videos = provider.jobs["video"]
    return play(videos.collect(ticket, look(ticket, now_s), target(), FACTS), now_s)[0]


@pytest.mark.parametrize(
    ("after_s", "status", "progress"),
    [
        (-5, "queued", 0),
        (0.0, "queued", 0),
        (0.29, "queued", 0),
        (1.0, "running", 50),
        (1.9, "running", 95),
        (2.0, "succeeded", 100),
        (9_000, "succeeded", 100),
    ],
)
def test_a_film_takes_its_time(after_s, status, progress):
    """It waits for 0.3 s and is there after 2 s."""
    view = look(film(), NOW_S + after_s)
    assert (view.status, view.progress) == (status, pytest.approx(progress, abs=0.2))


def test_the_control_header_says_how_long_a_film_takes():
    """The exchanges themselves are not held up by it."""
    ticket = film(control="delay_ms=10000")
    assert look(ticket, NOW_S + 9.9).status == "running"
    assert look(ticket, NOW_S + 10).status == "succeeded"
    body = {"model": "m", "prompt": "p", "width": 64, "height": 64, "duration_s": 1}
    request = HttpRequest(
        method="POST",
        url="http://sandbox.invalid/v1/videos",
        headers={"x-llm-gate-sandbox": "delay_ms=10000"},
        body=json.dumps(body).encode(),
    )
    assert provider.respond(request, NOW_S).delay_s == 0


@pytest.mark.parametrize(("duration_s", "frames"), [(1, 8), (4, 16), (30, 24)])
def test_a_film_is_an_animation_of_real_frames(duration_s, frames):
    """Every frame differs from the one before, and together they last as long as was asked."""
    medium = collect(film(duration_s=duration_s, aspect_ratio="9:16", resolution="360p"))
    assert medium.type == "image/gif"
    animation = opened(medium.data)
    assert (animation.format, animation.size, animation.n_frames) == ("GIF", (360, 640), frames)
    assert animation.info["comment"].decode() == COMMENT
    seen = []
    for number in range(frames):
        animation.seek(number)
        seen.append(animation.convert("RGB").tobytes())
    assert len(set(seen)) == frames
    assert measure_picture(medium.data).duration_s == pytest.approx(duration_s, abs=0.2)


def test_a_film_follows_from_its_ticket_alone():
    """Two processes with the same ticket see the same film; a long prompt does not make a long id."""
    ticket = film("Äé😀" * 5_000, width=320, height=180)
    assert collect(Ticket(id=ticket.id)) == collect(ticket, NOW_S + 500)
    assert len(ticket.id) < 4_000
    assert film(seed=1).id != film(seed=2).id


def test_a_film_begins_with_the_colour_of_the_given_picture():
    """And says which wishes were not carried out."""
    ticket = film(
        image=a_picture(colour="blue"), width=320, height=180, generate_audio=True, extra={"camera": 1}
    )
    assert opened(collect(ticket).data).convert("RGB").getpixel((1, 1))[2] > 60
    told = base64.urlsafe_b64decode(ticket.id + "=" * (-len(ticket.id) % 4)).decode()
    assert "generate_audio, camera" in told


def test_a_film_can_be_told_to_fail():
    """It fails when it would have been there, and nobody is billed."""
    ticket = film("a cat [fail]")
    assert look(ticket, NOW_S + 1).status == "running"
    view = look(ticket, NOW_S + 2)
    assert view.status == "failed"
    assert isinstance(view.error, ProviderUnavailable)
    assert view.error.is_unbilled
    assert "synthetic" in view.error.message


def test_a_film_that_is_not_there_cannot_be_collected():
    """Neither before its time nor after a failure."""
    videos = provider.jobs["video"]
    for ticket, now_s in ((film(), NOW_S + 1), (film("[fail]"), NOW_S + 5)):
        with pytest.raises(ProviderRejected):
            play(videos.collect(ticket, look(ticket, now_s), target(), FACTS), now_s)


def test_calling_a_film_off_is_noticed_and_not_remembered():
    """The sandbox keeps nothing, so that a later look tells what it would have."""
    ticket = film()
    assert play(provider.jobs["video"].cancel(ticket, target(), FACTS))[0] is True
    assert look(ticket, NOW_S + 3).status == "succeeded"


@pytest.mark.parametrize(
    "name",
    [
        "abc",
        "e30",
        base64.urlsafe_b64encode(b'{"words":"x","width":99999}').decode().rstrip("="),
        "_" * 40,
    ],
)
def test_ids_that_the_sandbox_never_gave_are_refused(name):
    """What an id holds is checked like anything else that comes from outside."""
    with pytest.raises(ProviderRejected):
        look(Ticket(id=name), NOW_S)


@pytest.mark.parametrize(
    "changes",
    [{"width": 100_000}, {"duration_s": 10**6}, {"takes_s": -1}, {"colour": [1, 2, 999]}, {"more": 1}],
)
def test_an_id_with_impossible_contents_is_refused(changes):
    """Nobody makes the sandbox draw beyond its bounds."""
    ticket = film()
    told = json.loads(base64.urlsafe_b64decode(ticket.id + "=" * (-len(ticket.id) % 4)))
    forged = base64.urlsafe_b64encode(json.dumps({**told, **changes}).encode()).decode().rstrip("=")
    with pytest.raises(ProviderRejected):
        look(Ticket(id=forged), NOW_S + 5)


@pytest.mark.parametrize("text", HARD_TEXTS)
def test_a_film_of_any_text_can_be_drawn(text):
    """Also a very small one."""
    for side in (16, 200):
        data = draw_film(text, width=side, height=side, frames=8, duration_s=1, seed=0)
        assert opened(data).n_frames == 8


# The control header, and answers that are none


ALL = (
    image(),
    ImageEditRequest(model="m", images=(a_picture(),), prompt="p"),
    FaceSwapRequest(model="m", image=a_picture(), face=a_picture()),
    SpeechRequest(model="m", text="Hello"),
    TranscriptionRequest(model="m", audio=Medium(data=make_speech("Hi"), type="audio/wav")),
)
BY_OPERATION = pytest.mark.parametrize("request_", ALL, ids=[one.operation for one in ALL])


@BY_OPERATION
def test_the_control_header_makes_media_fail(request_):
    """The status becomes the error that it always becomes."""
    with pytest.raises(ProviderRateLimited):
        run(request_, control="fail=429")
    with pytest.raises(InvalidRequest):
        run(request_, control="fial=429")


def test_the_control_header_makes_films_fail():
    """When they are handed in."""
    with pytest.raises(ProviderUnavailable):
        film(control="fail=503")


def first_send(request, control=None):
    return next(provider.media[request.operation].run(request, target(control), FACTS)).request


@BY_OPERATION
def test_the_control_header_delays_and_cuts_media(request_):
    """An answer that is cut is half of the whole one, and marked as broken."""
    local = provider.respond(first_send(request_, "delay_ms=250; cut_after=1"), NOW_S)
    assert (local.delay_s, local.broken, local.status) == (0.25, True, 200)
    whole = b"".join(provider.respond(first_send(request_), NOW_S).chunks)
    assert b"".join(local.chunks) == whole[: len(whole) // 2]


@BY_OPERATION
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"<html></html>", b"\xff\xfe", b'{"data":[],"model":"m","synthetic":true}'],
)
def test_an_answer_that_is_none_is_not_believed(request_, body):
    """Every codec checks what it reads."""
    exchanges = provider.media[request_.operation].run(request_, target(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse):
        exchanges.send(HttpReply(status=200, headers={}, body=body))


@pytest.mark.parametrize("step", ["submit", "look", "collect", "cancel"])
@pytest.mark.parametrize("body", [b"", b"null", b"{}", b"<html></html>", b'{"id":"x","status":"odd"}'])
def test_an_answer_about_a_film_that_is_none_is_not_believed(step, body):
    """Neither when it is handed in nor afterwards."""
    videos, ticket = provider.jobs["video"], Ticket(id="abc")
    exchanges = {
        "submit": lambda: videos.submit(VideoRequest(model="m", prompt="p"), target(), FACTS),
        "look": lambda: videos.look(ticket, target(), FACTS),
        "collect": lambda: videos.collect(ticket, None, target(), FACTS),
        "cancel": lambda: videos.cancel(ticket, target(), FACTS),
    }[step]()
    next(exchanges)
    with pytest.raises(BadProviderResponse):
        exchanges.send(HttpReply(status=200, headers={}, body=body))


@pytest.mark.parametrize(
    "path",
    [
        "images/generations",
        "images/edits",
        "images/face-swaps",
        "audio/speech",
        "audio/transcriptions",
        "videos",
    ],
)
@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff"])
def test_an_order_that_cannot_be_read_is_refused(path, body):
    """As a vendor would."""
    local = provider.respond(
        HttpRequest(method="POST", url=f"http://sandbox.invalid/v1/{path}", body=body), NOW_S
    )
    assert local.status == 400
    assert b"synthetic" in b"".join(local.chunks)


@BY_OPERATION
def test_every_json_answer_says_that_it_is_synthetic(request_):
    """Also to whoever reads the wire."""
    reply = answered(provider.respond(first_send(request_), NOW_S))
    if reply.headers["content-type"] == "application/json":
        assert msgspec.json.decode(reply.body)["synthetic"] is True
    else:
        assert TITLE.encode() in reply.body[:200]


# The catalog


@pytest.fixture(scope="module", name="models")
def _models():
    return load_catalog().providers["sandbox"]


UNITS = (
    ("image", "images"),
    ("image_edit", "images"),
    ("face_swap", "images"),
    ("video", "seconds"),
    ("speech", "characters"),
    ("transcription", "seconds"),
)


@pytest.mark.parametrize(("operation", "unit"), UNITS)
def test_the_catalog_has_a_free_model_for_every_operation(models, operation, unit):
    """Each is the default of its operation and costs nothing."""
    model = models.models[models.spec.defaults[operation]]
    assert model.operations == (operation,)
    assert provider.does(operation)
    assert model.media is not None
    assert [(price.unit, price.nanos) for price in model.prices] == [(unit, 0)]


def test_whatever_the_catalog_takes_the_codec_carries_out(models):
    """A request with every listed ratio, resolution, format and length is carried out."""
    media = models.models["image"].media
    for ratio in media.aspect_ratios:
        for resolution in media.resolutions:
            request = fit(image(aspect_ratio=ratio, resolution=resolution), models.models["image"]).request
            next(provider.media["image"].run(request, target(), FACTS))
    media = models.models["video"].media
    for ratio in media.aspect_ratios:
        for resolution in media.resolutions:
            asked = VideoRequest(model="v", prompt="p", aspect_ratio=ratio, resolution=resolution)
            request = fit(asked, models.models["video"]).request
            ticket, _ = play(provider.jobs["video"].submit(request, target(), FACTS))
            assert look(ticket, NOW_S + 2).status == "succeeded"
    for duration_s in media.durations_s:
        assert film(duration_s=duration_s)
