"""Media in the native wire format: every field arrives, what is unknown or wrong is refused with its path."""

import base64
import json
from copy import deepcopy

import pytest
from msgspec import structs

from llm_gate.dialects.native_media import (
    MadeMedium,
    decode_face_swap,
    decode_image_edit,
    decode_image_request,
    decode_speech_request,
    decode_transcription,
    decode_video_request,
    encode_images,
    encode_speech,
    encode_transcription,
)
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import (
    ImageResult,
    Link,
    Medium,
    Picture,
    Segment,
    Speaker,
    SpeechResult,
    TranscriptionResult,
)
from llm_gate.domain.pricing import Cost
from support.pictures import in_base64, picture, recording
from support.targets import make_target

SHOWN, SOUND = picture(), recording(0.1)
LINK = "https://example.com/a.png"
CHOICE = {"provider": {"name": "p", "model": {"name": "m"}}, "fallbacks": ["q/n"]}
CHOSEN = {"model": "p/m", "fallbacks": ("q/n",)}
IMAGE_SAID = {
    "n": 3, "size": "640*480", "aspectRatio": "16:9", "resolution": "2K", "quality": "high", "style": "vivid",
    "background": "opaque", "format": "webp", "responseFormat": "b64_json", "negativePrompt": "dogs",
    "guidanceScale": 3.5, "steps": 9, "seed": -1, "extra": {"a_b": [1]},
}  # fmt: skip
IMAGE_MEANT = {
    "n": 3, "width": 640, "height": 480, "aspect_ratio": "16:9", "resolution": "2K", "quality": "high",
    "style": "vivid", "background": "opaque", "format": "webp", "negative_prompt": "dogs", "guidance_scale": 3.5,
    "steps": 9, "seed": -1, "extra": {"a_b": [1]},
}  # fmt: skip
VIDEO_SAID = {
    "duration": 5, "resolution": "720p", "size": "auto", "aspectRatio": "9:16", "negativePrompt": "", "seed": 0,
    "guidanceScale": 0, "steps": 1, "enablePromptExpansion": False, "generateAudio": True, "image": LINK,
    "audio": in_base64(SOUND), "extra": {"x": None},
}  # fmt: skip
VIDEO_MEANT = {
    "duration_s": 5, "resolution": "720p", "aspect_ratio": "9:16", "negative_prompt": "", "seed": 0,
    "guidance_scale": 0.0, "steps": 1, "prompt_expansion": False, "generate_audio": True, "image": Link(url=LINK),
    "audio": Medium(data=SOUND, type="audio/wav"), "extra": {"x": None}, "width": None, "height": None,
}  # fmt: skip
SPEECH_SAID = {
    "voice": "Anna", "speakers": [{"name": "A", "voice": "Otto"}], "format": "wav", "speed": 0.5, "pitch": -3,
    "volume": 2, "emotion": "sad", "instructions": "slow", "language": "de", "sampleRate": 24_000,
    "responseFormat": "binary", "extra": {"y": 1},
}  # fmt: skip
SPEECH_MEANT = {
    "voice": "Anna", "speakers": (Speaker(name="A", voice="Otto"),), "format": "wav", "speed": 0.5, "pitch": -3,
    "volume": 2.0, "emotion": "sad", "instructions": "slow", "language": "de", "sample_rate": 24_000,
    "extra": {"y": 1},
}  # fmt: skip
HEARD_SAID = {
    "language": "de",
    "prompt": "x",
    "temperature": 0.5,
    "timestamps": ["word", "word"],
    "extra": {"z": 1},
}
SWAP_SAID = {
    "targetFaceIndex": 2, "targetGender": "female", "format": "png", "seed": 7, "responseFormat": "b64_json",
    "extra": {"s": 1},
}  # fmt: skip
GIVEN = Medium(data=SHOWN, type="image/png")

# Each decoder with a body that says everything, the fields that this means, and what comes beside the request.
CASES = {
    "image": (
        decode_image_request,
        {"prompt": {"message": "x", "parameter": IMAGE_SAID}},
        {"prompt": "x", **IMAGE_MEANT},
        "b64_json",
    ),
    "edit": (
        decode_image_edit,
        {
            "images": [LINK, in_base64(SHOWN)],
            "mask": f"data:image/png;base64,{in_base64(SHOWN)}",
            "prompt": {"message": "x", "parameter": IMAGE_SAID | {"operation": "inpaint"}},
        },
        {"prompt": "x", "images": (Link(url=LINK), GIVEN), "mask": GIVEN, "task": "inpaint", **IMAGE_MEANT},
        "b64_json",
    ),
    "swap": (
        decode_face_swap,
        {"baseImage": LINK, "faceImage": in_base64(SHOWN), "parameter": SWAP_SAID},
        {
            "image": Link(url=LINK), "face": GIVEN, "face_index": 2, "gender": "female", "format": "png", "seed": 7,
            "extra": {"s": 1},
        },
        "b64_json",
    ),
    "video": (
        decode_video_request,
        {"prompt": {"message": "x", "parameter": VIDEO_SAID}, "webhook": "https://example.com/told"},
        {"prompt": "x", **VIDEO_MEANT},
        "https://example.com/told",
    ),
    "speech": (
        decode_speech_request,
        {"prompt": {"message": "x", "parameter": SPEECH_SAID}},
        {"text": "x", **SPEECH_MEANT},
        "binary",
    ),
    "transcription": (
        lambda body: (decode_transcription(body), None),
        {"audio": in_base64(SOUND), "parameter": HEARD_SAID},
        {
            "audio": Medium(data=SOUND, type="audio/wav"), "language": "de", "prompt": "x", "temperature": 0.5,
            "timestamps": ("word",), "extra": {"z": 1},
        },
        None,
    ),
}  # fmt: skip
LEAST = {
    "image": ({"prompt": {"message": "x"}}, {"prompt": "x", "n": 1}, "url"),
    "edit": ({"images": [LINK]}, {"images": (Link(url=LINK),), "prompt": "", "task": "general_edit"}, "url"),
    "swap": (
        {"baseImage": LINK, "faceImage": LINK},
        {"image": Link(url=LINK), "face": Link(url=LINK)},
        "url",
    ),
    "video": ({"prompt": {"message": "x"}}, {"prompt": "x"}, None),
    "speech": ({"prompt": {"message": "x"}}, {"text": "x"}, "url"),
    "transcription": ({"audio": LINK}, {"audio": Link(url=LINK)}, None),
}


def decode(kind, body):
    """Read a body."""
    return CASES[kind][0](json.dumps(body).encode())


def faults(kind, body):
    """Return the paths of everything that is wrong with a body."""
    with pytest.raises(InvalidRequest) as caught:
        decode(kind, body)
    found = [fault.path for fault in caught.value.faults]
    return sorted(found) if found else [caught.value.param]


def places(value, path=()):
    """Yield every object inside a body, with the path to it, where fields are known."""
    if isinstance(value, dict):
        yield path
        for name, inner in value.items():
            if name != "extra":
                yield from places(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


def written(path):
    """Return a path as refusals show it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def put(body, path, name, value):
    """Return a body in which one field is another."""
    changed = deepcopy(body)
    inner = changed
    for step in path:
        inner = inner[step]
    inner[name] = value
    return changed


@pytest.mark.parametrize("kind", CASES)
def test_every_field_arrives(kind):
    """Whatever a body says stands in the request, and nothing else does."""
    _, body, meant, beside = CASES[kind]
    request, said = decode(kind, body | CHOICE)
    assert request == type(request)(**meant, **CHOSEN)
    assert said == beside


@pytest.mark.parametrize("kind", CASES)
def test_every_field_was_said(kind):
    """The bodies of these tests leave out no field of a request that a caller can set."""
    request, _ = decode(kind, CASES[kind][1] | CHOICE)
    unsaid = {"user", "n", "width", "height", "duration_s", "is_streamed"}
    unset = {
        field.name
        for field in structs.fields(request)
        if field.name not in unsaid and field.default == getattr(request, field.name)
    }
    assert unset == set()


@pytest.mark.parametrize("kind", LEAST)
def test_the_least_body_is_enough(kind):
    """What is not said is left to the gateway."""
    body, meant, beside = LEAST[kind]
    request, said = decode(kind, body)
    assert request == type(request)(model="", **meant)
    assert said == beside


UNKNOWN = [(kind, path) for kind, case in CASES.items() for path in places(case[1] | CHOICE)]


@pytest.mark.parametrize(("kind", "path"), UNKNOWN)
def test_unknown_fields_are_refused(kind, path):
    """A field that is not known is refused with its path, wherever it stands."""
    assert faults(kind, put(CASES[kind][1] | CHOICE, path, "colour", 1)) == [written((*path, "colour"))]


WRONG = [(kind, path[:-1], path[-1]) for kind, path in UNKNOWN if path and isinstance(path[-1], str)]


@pytest.mark.parametrize(("kind", "path", "name"), WRONG)
def test_objects_of_another_type_are_refused(kind, path, name):
    """A number where an object should stand is refused with its path."""
    assert faults(kind, put(CASES[kind][1] | CHOICE, path, name, 7)) == [written((*path, name))]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        *(("image", "n", value) for value in (0, 11, 1.5, "1", True)),
        *(
            ("image", "size", value)
            for value in ("", "0x1", "1x0", "x", "1024", "1024x", "123456x1", "1 x 1", 7)
        ),
        *(("image", "aspectRatio", value) for value in ("1", "0:1", "100:1", "16/9", ":")),
        *(("image", "responseFormat", value) for value in ("binary", "", "URL")),
        *(("image", "guidanceScale", value) for value in (-0.1, 100.1, "1")),
        *(("image", "steps", value) for value in (0, 65_537)),
        *(("image", "seed", value) for value in (2**63, -(2**63) - 1, 0.5)),
        *(("image", "quality", value) for value in ("", "x" * 101)),
        *(("image", "extra", value) for value in ([], "x", 1)),
        *(("video", "duration", value) for value in (0, 3_601, "5", 1.5)),
        *(("video", "generateAudio", value) for value in (0, "true")),
        *(("speech", "speed", value) for value in (0, 10.5)),
        *(("speech", "pitch", value) for value in (101, -101, 0.5)),
        *(("speech", "sampleRate", value) for value in (999, 400_001)),
    ],
)
def test_values_out_of_bounds_are_refused(kind, name, value):
    """What is out of its bounds is refused with its path."""
    body = {"prompt": {"message": "x", "parameter": {name: value}}}
    assert faults(kind, body) == [f"prompt.parameter.{name}"]


@pytest.mark.parametrize(
    ("kind", "body", "paths"),
    [
        (
            "image",
            {"prompt": {"message": "", "parameter": {"n": 0, "size": "9", "colour": 1}}, "other": 1},
            [
                "other",
                "prompt.message",
                "prompt.parameter.colour",
                "prompt.parameter.n",
                "prompt.parameter.size",
            ],
        ),
        ("edit", {"images": ["????", LINK, "!!!!"], "mask": "data:,x"}, ["images[0]", "images[2]", "mask"]),
        ("edit", {"images": ["????"], "provider": {"name": "a/b"}}, ["images[0]", "provider.name"]),
        ("swap", {"baseImage": "????", "faceImage": "data:;base64,"}, ["baseImage", "faceImage"]),
        (
            "video",
            {"prompt": {"message": "x", "parameter": {"image": "????", "audio": "!!!!"}}},
            ["prompt.parameter.audio", "prompt.parameter.image"],
        ),
        ("video", {"prompt": {}, "webhook": "ftp://x"}, ["prompt.message", "webhook"]),
        (
            "speech",
            {"prompt": {"message": "x", "parameter": {"speakers": [{"name": "A"}, {"voice": ""}]}}},
            [
                "prompt.parameter.speakers[0].voice",
                "prompt.parameter.speakers[1].name",
                "prompt.parameter.speakers[1].voice",
            ],
        ),
        (
            "transcription",
            {"audio": "x", "parameter": {"temperature": 3, "timestamps": ["word", "line"]}},
            ["audio", "parameter.temperature", "parameter.timestamps[1]"],
        ),
    ],
)
def test_all_faults_are_told_at_once(kind, body, paths):
    """Everything that is wrong with a body is found in one go."""
    assert faults(kind, body) == paths


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"7", b"\xff", b'{"prompt":1,"prompt":2}', b"{}"]
)
def test_what_is_no_body_is_refused(kind, body):
    """What is no JSON object, or lacks what it must say, is the caller's fault."""
    with pytest.raises(InvalidRequest):
        CASES[kind][0](body)


@pytest.mark.parametrize("size", [0, 1, 2, 16])
def test_the_number_of_pictures_is_bounded(size):
    """One picture at least and 16 at most can be changed at once."""
    if size == 0:
        assert faults("edit", {"images": []}) == ["images"]
        assert faults("edit", {"images": [LINK] * 17}) == ["images"]
    else:
        assert len(decode("edit", {"images": [LINK] * size})[0].images) == size


MADE = MadeMedium(url="https://gate/x", expires_at="2026-01-01T00:00:00+00:00")
RESULT = ImageResult(
    pictures=(
        Picture(medium=Medium(data=SHOWN, type="image/png"), width=64, height=48, seed=0, revised_prompt="y"),
        Picture(medium=Medium(data=b"a", type="image/webp")),
    ),
    notes=("smaller",),
)


def test_pictures_are_written_as_bytes_or_links():
    """Each picture has its place, type, size and seed; what is not known is left out."""
    target = make_target()
    shown = json.loads(encode_images(RESULT, target, Cost(lines=()), None))
    first, second = shown["data"]
    assert base64.b64decode(first.pop("b64_json")) == SHOWN
    assert first == {"type": "image/png", "width": 64, "height": 48, "seed": 0, "revisedPrompt": "y"}
    assert second == {"b64_json": "YQ==", "type": "image/webp"}
    assert shown["provider"] == {"name": target.provider, "model": {"name": target.model.name}}
    assert shown["notes"] == ["smaller"]
    assert shown["cost"] == {"total": 0, "currency": "USD"}
    linked = json.loads(encode_images(RESULT, target, None, [MADE, MADE]))
    assert [(each["url"], each["expiresAt"]) for each in linked["data"]] == [(MADE.url, MADE.expires_at)] * 2
    assert "b64_json" not in linked["data"][0]
    assert "cost" not in linked


@pytest.mark.parametrize(("lasts_s", "told"), [(None, None), (1.23456, 1.235), (0.0, 0.0)])
def test_a_voice_is_written(lasts_s, told):
    """A voice has its type and, where it is known, its length in seconds."""
    result = SpeechResult(audio=Medium(data=b"a", type="audio/wav"), duration_s=lasts_s)
    (shown,) = json.loads(encode_speech(result, make_target(), None, None))["data"]
    assert shown == {"b64_json": "YQ==", "type": "audio/wav"} | ({} if told is None else {"duration": told})
    (linked,) = json.loads(encode_speech(result, make_target(), None, MADE))["data"]
    assert (linked["url"], "b64_json" in linked) == (MADE.url, False)


def test_a_transcript_is_written():
    """Text, language, length, stretches, words and speakers arrive; empty lists are left out."""
    pieces = (
        Segment(start_s=0.0, end_s=1.5, text="Hello", speaker="A"),
        Segment(start_s=1.5, end_s=2.0, text="you"),
    )
    result = TranscriptionResult(
        text="Hello you", language="en", duration_s=2.0, segments=pieces, words=pieces[1:]
    )
    shown = json.loads(encode_transcription(result, make_target(), None))
    assert (shown["text"], shown["language"], shown["duration"]) == ("Hello you", "en", 2.0)
    assert shown["segments"] == [
        {"start": 0.0, "end": 1.5, "text": "Hello", "speaker": "A"},
        {"start": 1.5, "end": 2.0, "text": "you"},
    ]
    assert shown["words"] == shown["segments"][1:]
    least = json.loads(encode_transcription(TranscriptionResult(text=""), make_target(), None))
    assert least.keys() == {"text", "provider"}
