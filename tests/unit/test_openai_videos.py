"""Films in the OpenAI wire format: jobs handed in, looked at and fetched, and what callers may send and see."""

import base64
import json
from email import message_from_bytes

import msgspec
import pytest

from llm_gate.dialects.openai import address
from llm_gate.dialects.openai_videos import (
    OpenAIVideos,
    decode_video_form,
    decode_video_request,
    video_object,
)
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    InvalidRequest,
    ProviderRateLimited,
    ProviderRejected,
    ProviderUnavailable,
)
from llm_gate.domain.media import Link, Medium, VideoRequest
from llm_gate.domain.provider import Facts, JobView, Ticket
from support.targets import make_reply, make_target

FACTS = Facts(now_s=0.0, token="0f" * 16)
CODEC = OpenAIVideos(address)
WAVES = VideoRequest(model="m", prompt="Waves.")
PNG = Medium(data=b"\x89PNG\r\n\x1a\n\x00\xff", type="image/png")
FILM = b"\x00\x00\x00\x20ftypisom\x00\x00"
TICKET = Ticket(id="video_12")
VIEW = JobView(status="succeeded")
PAGE = b"<!doctype html><p>Busy"


def submit(request, reply=None, **target):
    """Hand a job in and return what was sent and the ticket."""
    exchanges = CODEC.submit(request, make_target(**target), FACTS)
    sent = next(exchanges)
    with pytest.raises(StopIteration) as end:
        exchanges.send(reply or make_reply({"id": "video_12", "object": "video", "status": "queued"}))
    return sent, end.value.value


def look(body):
    """Look how a job stands and return the request and the view."""
    exchanges = CODEC.look(TICKET, make_target(), FACTS)
    sent = next(exchanges)
    with pytest.raises(StopIteration) as end:
        exchanges.send(make_reply(body))
    return sent, end.value.value


def collect(reply):
    """Fetch a film and return the request and the film."""
    exchanges = CODEC.collect(TICKET, VIEW, make_target(), FACTS)
    sent = next(exchanges)
    with pytest.raises(StopIteration) as end:
        exchanges.send(reply)
    return sent, end.value.value


def test_a_film_is_asked_for():
    """A job without a picture is handed in as JSON, whose seconds are a text, and is paid."""
    request = VideoRequest(
        model="m",
        prompt="Waves.",
        duration_s=8,
        width=1280,
        height=720,
        user="u",
        extra={"prompt": "x", "v": 1},
    )
    sent, ticket = submit(request, media=MediaSpec(fields={"mode": "best"}))
    assert sent.is_paid
    assert (sent.request.method, sent.request.url) == ("POST", "https://vendor.test/v1/videos")
    assert sent.request.headers == {"content-type": "application/json"}
    assert json.loads(sent.request.body) == {
        "model": "model-a",
        "prompt": "Waves.",
        "seconds": "8",
        "size": "1280x720",
        "mode": "best",
        "v": 1,
    }
    assert ticket == TICKET


def test_a_film_is_asked_for_with_a_picture():
    """A picture makes the job a form, in which it is a file."""
    sent, ticket = submit(VideoRequest(model="m", prompt="Waves.", image=PNG, duration_s=4, extra={"v": [1]}))
    head = f"content-type: {sent.request.headers['content-type']}\r\n\r\n".encode()
    parts = {
        part.get_param("name", header="content-disposition"): (
            part.get_filename(),
            part.get_payload(decode=True),
        )
        for part in message_from_bytes(head + sent.request.body).get_payload()
    }
    assert parts == {
        "model": (None, b"model-a"),
        "prompt": (None, b"Waves."),
        "seconds": (None, b"4"),
        "v": (None, b"[1]"),
        "input_reference": ("file.png", PNG.data),
    }
    assert sent.is_paid
    assert ticket == TICKET


SORA = MediaSpec(sizes=("1280x720", "720x1280", "1792x1024", "1024x1792"))
STEPS = MediaSpec(pixels={"720p": "1280*720", "4K": "3840x2160"})


@pytest.mark.parametrize(
    ("spec", "resolution", "ratio", "size"),
    [
        (None, None, None, None),
        (None, "720p", "16:9", "1280x720"),
        (None, "720p", "9:16", "720x1280"),
        (None, "720P", "1:1", "720x720"),
        (None, "480p", "21:9", "1120x480"),
        (SORA, "720p", None, "1280x720"),
        (SORA, "720p", "9:16", "720x1280"),
        (SORA, "1024p", "16:9", "1792x1024"),
        (SORA, None, "9:16", "720x1280"),
        (STEPS, "720p", None, "1280x720"),
        (STEPS, "4K", None, "3840x2160"),
        (STEPS, "4K", "9:16", "2160x3840"),
        (STEPS, "720p", "1:1", "720x720"),
        (STEPS, None, "16:9", "1280x720"),
    ],
)
def test_a_size_is_found(spec, resolution, ratio, size):
    """Step and ratio become a width and a height that the model makes."""
    request = VideoRequest(model="m", prompt="Waves.", resolution=resolution, aspect_ratio=ratio)
    assert json.loads(submit(request, media=spec)[0].request.body).get("size") == size


@pytest.mark.parametrize(
    ("spec", "resolution", "ratio", "param"),
    [
        (None, "720p", None, "resolution"),
        (None, "4K", "16:9", "resolution"),
        (None, None, "16:9", "aspect_ratio"),
        (None, "720p", "wide", "aspect_ratio"),
        (None, "720p", "0:9", "aspect_ratio"),
        (SORA, "720p", "1:1", "resolution"),
        (SORA, "1080p", None, "resolution"),
        (SORA, None, "1:1", "aspect_ratio"),
        (STEPS, "4K", "1:1", "resolution"),
    ],
)
def test_a_size_that_is_not_made_is_refused(spec, resolution, ratio, param):
    """Step and ratio that tell no size of the model are refused before anything is sent."""
    request = VideoRequest(model="m", prompt="Waves.", resolution=resolution, aspect_ratio=ratio)
    with pytest.raises(InvalidRequest) as refused:
        next(CODEC.submit(request, make_target(media=spec), FACTS))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("audio", Medium(data=b"ID3", type="audio/mpeg")),
        ("n", 2),
        ("negative_prompt", "rain"),
        ("seed", 0),
        ("guidance_scale", 2.0),
        ("steps", 9),
        ("prompt_expansion", False),
        ("generate_audio", True),
    ],
)
def test_wishes_without_a_word_are_refused(name, value):
    """What the format cannot say is refused before anything is sent."""
    with pytest.raises(InvalidRequest) as refused:
        next(CODEC.submit(msgspec.structs.replace(WAVES, **{name: value}), make_target(), FACTS))
    assert refused.value.param == name


def test_wishes_that_the_catalog_knows_go_out():
    """A model whose entry takes a further wish is told it under its own name."""
    request = VideoRequest(model="m", prompt="Waves.", seed=0)
    body = json.loads(submit(request, media=MediaSpec(takes=("seed",)))[0].request.body)
    assert body == {"model": "model-a", "prompt": "Waves.", "seed": 0}


BROKEN = [b"", b"null", b"[]", b'"job"', PAGE, b'{"id": 5, "status": 5}', b"{}", b'{"id": "", "sta']


@pytest.mark.parametrize("body", [*BROKEN, b'{"id": "", "status": "queued"}', b'{"id": null}'])
def test_what_is_no_job_is_refused(body):
    """An answer that names no job breaks the contract."""
    exchanges = CODEC.submit(WAVES, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse, match="is no job"):
        exchanges.send(make_reply(body))


@pytest.mark.parametrize("body", [*BROKEN, b'{"id": "video_12"}', b'{"id": "video_12", "status": null}'])
def test_a_look_that_tells_nothing_is_refused(body):
    """An answer without a status breaks the contract."""
    exchanges = CODEC.look(TICKET, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse, match="is no job"):
        exchanges.send(make_reply(body))


@pytest.mark.parametrize("step", ["submit", "look", "collect"])
def test_an_error_inside_a_success_is_raised(step):
    """An error object in an answer with status 200 is the error that it names."""
    exchanges = {
        "submit": CODEC.submit(WAVES, make_target(), FACTS),
        "look": CODEC.look(TICKET, make_target(), FACTS),
        "collect": CODEC.collect(TICKET, VIEW, make_target(), FACTS),
    }[step]
    next(exchanges)
    with pytest.raises(ProviderRateLimited):
        exchanges.send(make_reply({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}))


@pytest.mark.parametrize(
    ("status", "told", "view"),
    [
        ("queued", 0, JobView(status="queued", progress=0.0)),
        ("in_progress", 33, JobView(status="running", progress=33.0)),
        ("in_progress", 101, JobView(status="running")),
        ("in_progress", -1, JobView(status="running")),
        ("moderating", None, JobView(status="running")),
        ("completed", 100, JobView(status="succeeded", progress=100.0)),
        ("Cancelled", None, JobView(status="cancelled")),
    ],
)
def test_a_job_is_looked_at(status, told, view):
    """The vendor's words become ours; a percentage that cannot be is none."""
    sent, found = look({"id": "video_12", "status": status, "progress": told, "error": None})
    assert found == view
    assert not sent.is_paid
    assert (sent.request.method, sent.request.url, sent.request.body) == (
        "GET",
        "https://vendor.test/v1/videos/video_12",
        b"",
    )


FAILURES = [
    ({"code": "moderation_blocked", "message": "No."}, ContentFiltered),
    ({"code": "sentinel_block", "message": "No."}, ContentFiltered),
    ({"code": "content_policy_violation", "message": "No."}, ContentFiltered),
    ({"code": "rate_limit_exceeded", "message": "Later."}, ProviderRateLimited),
    ({"code": "invalid_prompt", "message": "No."}, ProviderRejected),
    ({"code": "video_generation_failed", "message": "Broken."}, ProviderUnavailable),
    ({"code": None, "message": None}, ProviderUnavailable),
    ({"code": 5}, ProviderUnavailable),
    ("Broken.", ProviderUnavailable),
    (None, ProviderUnavailable),
]


@pytest.mark.parametrize(("error", "kind"), FAILURES)
def test_a_failed_job_says_why(error, kind):
    """What a vendor says of its failure becomes a typed error, for which it takes no money."""
    _, view = look({"id": "video_12", "status": "failed", "progress": 5, "error": error})
    assert view.status == "failed"
    assert type(view.error) is kind
    assert view.error.is_unbilled


@pytest.mark.parametrize(("error", "kind"), FAILURES)
def test_a_job_may_fail_at_once(error, kind):
    """A job that failed while it was handed in has no ticket."""
    exchanges = CODEC.submit(WAVES, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(kind) as failed:
        exchanges.send(make_reply({"id": "video_12", "status": "failed", "error": error}))
    assert failed.value.is_unbilled


@pytest.mark.parametrize(
    ("body", "said", "type_"),
    [
        (FILM, "video/mp4", "video/mp4"),
        (FILM, "application/octet-stream", "video/mp4"),
        (b"\x1aE\xdf\xa3", "video/mp4", "video/webm"),
        (b"\x00\x00\x01\xba", "video/mpeg; x=1", "video/mpeg"),
    ],
)
def test_a_film_is_fetched(body, said, type_):
    """The film is the answer's bytes; its type is found in them, else in the vendor's word."""
    sent, film = collect(make_reply(body, content_type=said))
    assert film == Medium(data=body, type=type_)
    assert not sent.is_paid
    assert (sent.request.method, sent.request.url) == (
        "GET",
        "https://vendor.test/v1/videos/video_12/content",
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "video/mp4"),
        (b"null", "application/json"),
        (b"{}", "video/mp4"),
        (PAGE, "video/mp4"),
        (PAGE, "text/html"),
        (b"soon", "text/plain"),
        (PNG.data, "image/png"),
        (b"\x00\x01\x02", "application/octet-stream"),
    ],
)
def test_what_is_no_film_is_refused(body, said):
    """An answer that is empty, a page, JSON, a picture or nobody knows what is no film."""
    exchanges = CODEC.collect(TICKET, VIEW, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse, match="holds no film"):
        exchanges.send(make_reply(body, content_type=said))


def test_a_job_cannot_lead_elsewhere():
    """The id of a job is one step of the address, whatever it holds."""
    sent = next(CODEC.look(Ticket(id="../models?x=1#"), make_target(), FACTS))
    assert sent.request.url == "https://vendor.test/v1/videos/..%2Fmodels%3Fx%3D1%23"


def test_films_cannot_be_called_off():
    """The vendor offers no way to stop a film that is being made."""
    assert CODEC.cancel(TICKET, make_target(), FACTS) is None


def test_a_request_is_read():
    """Every field of the format is read, and those of vendors are handed on."""
    body = {
        "model": "m",
        "prompt": "Waves.",
        "seconds": "8",
        "size": "720x1280",
        "input_reference": {"image_url": "https://pictures.test/a.png"},
        "user": "u",
        "style": {"a": 1},
        "nothing": None,
    }
    assert decode_video_request(json.dumps(body).encode()) == VideoRequest(
        model="m",
        prompt="Waves.",
        duration_s=8,
        width=720,
        height=1280,
        image=Link(url="https://pictures.test/a.png"),
        user="u",
        extra={"style": {"a": 1}},
    )


def test_seconds_may_be_a_number():
    """A number of seconds is read as its text is; what nobody says is left open."""
    request = decode_video_request(b'{"model": "m", "prompt": "Waves.", "seconds": 4}')
    assert request == VideoRequest(model="m", prompt="Waves.", duration_s=4)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": ""}, "model"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": None}, "prompt"),
        ({"seconds": "0"}, "seconds"),
        ({"seconds": "4.5"}, "seconds"),
        ({"seconds": 4.5}, "seconds"),
        ({"seconds": -4}, "seconds"),
        ({"size": "auto"}, "size"),
        ({"size": "0x720"}, "size"),
        ({"input_reference": "https://a.test"}, "input_reference"),
        ({"input_reference": {}}, "input_reference"),
        ({"input_reference": {"file_id": "file-1"}}, "input_reference"),
        ({"input_reference": {"image_url": "a picture"}}, "input_reference[image_url]"),
    ],
)
def test_a_bad_request_is_refused(changes, param):
    """What is wrong in a request is named."""
    body = {"model": "m", "prompt": "Waves.", **changes}
    with pytest.raises(InvalidRequest) as refused:
        decode_video_request(json.dumps(body).encode())
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b'{"model": "m", "model": "n"}'])
def test_a_body_that_is_no_object_is_refused(body):
    """A request is one JSON object."""
    with pytest.raises(InvalidRequest):
        decode_video_request(body)


def test_a_form_is_read():
    """A form has the same fields, and its picture is a file."""
    fields = {
        "model": ["m"],
        "prompt": ["Waves."],
        "seconds": ["12"],
        "size": ["1280x720"],
        "style": ["calm"],
        "user": [""],
    }
    assert decode_video_form(fields, {"input_reference": [PNG]}) == VideoRequest(
        model="m",
        prompt="Waves.",
        duration_s=12,
        width=1280,
        height=720,
        image=PNG,
        extra={"style": "calm"},
    )


DATA_URL = f"data:image/png;base64,{base64.b64encode(PNG.data).decode()}"


@pytest.mark.parametrize(
    ("name", "text", "image"),
    [
        ("input_reference", "https://pictures.test/a.png", Link(url="https://pictures.test/a.png")),
        ("input_reference[image_url]", DATA_URL, PNG),
        ("input_reference", "", None),
    ],
)
def test_a_form_may_name_its_picture(name, text, image):
    """A picture may be given by address or as a data URL, too."""
    fields = {"model": ["m"], "prompt": ["Waves."], name: [text]}
    assert decode_video_form(fields, {}) == VideoRequest(model="m", prompt="Waves.", image=image)


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({"model": []}, {}, "model"),
        ({"model": [""]}, {}, "model"),
        ({"prompt": ["a", "b"]}, {}, "prompt"),
        ({"seconds": ["soon"]}, {}, "seconds"),
        ({"size": ["big"]}, {}, "size"),
        ({}, {"input_reference": [PNG, PNG]}, "input_reference"),
        ({}, {"input_reference": [Medium(data=b"", type="image/png")]}, "input_reference"),
        ({"input_reference": ["https://a.test"]}, {"input_reference": [PNG]}, "input_reference"),
        ({"input_reference": ["file-1"]}, {}, "input_reference[image_url]"),
        ({}, {"input_reference": [PNG], "mask": [PNG]}, "mask"),
    ],
)
def test_a_bad_form_is_refused(fields, files, param):
    """What is wrong in a form is named."""
    with pytest.raises(InvalidRequest) as refused:
        decode_video_form({"model": ["m"], "prompt": ["Waves."], **fields}, files)
    assert refused.value.param == param


def shown(**changes):
    """Return a video object as it is written."""
    told = {
        "id": "job_1",
        "status": "in_progress",
        "progress": 33.4,
        "model": "vendor/m",
        "created_s": 1700000000.9,
        "completed_s": None,
        "seconds": 8,
        "size": "1280x720",
        "error_code": None,
        "error_message": None,
    }
    return json.loads(msgspec.json.encode(video_object(**{**told, **changes})))


def test_a_job_is_shown():
    """A job under way has every field of the format, and null for what is not known."""
    assert shown() == {
        "id": "job_1",
        "object": "video",
        "model": "vendor/m",
        "status": "in_progress",
        "progress": 33,
        "created_at": 1700000000,
        "completed_at": None,
        "expires_at": None,
        "prompt": None,
        "size": "1280x720",
        "seconds": "8",
        "remixed_from_video_id": None,
        "error": None,
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"progress": None}, {"progress": 0}),
        (
            {"status": "completed", "progress": None, "completed_s": 1700000009.2},
            {"progress": 100, "completed_at": 1700000009},
        ),
        ({"seconds": None, "size": None}, {"seconds": None, "size": None}),
        (
            {"status": "failed", "error_code": "content_filter", "error_message": "No."},
            {"status": "failed", "error": {"code": "content_filter", "message": "No."}},
        ),
        (
            {"status": "failed", "error_message": "Broken."},
            {"error": {"code": "error", "message": "Broken."}},
        ),
    ],
)
def test_the_end_of_a_job_is_shown(changes, expected):
    """A finished film is whole, and a failure says why."""
    found = shown(**changes)
    assert {name: found[name] for name in expected} == expected
