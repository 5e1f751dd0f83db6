"""Media through a running gateway with the official client and natively, from vendors that check what they are sent."""

import base64
import hashlib
import io
import json
import re
import struct
import time
import wave
import zlib
from pathlib import Path

import openai
import pytest
from PIL import Image
from sqlalchemy import select

from llm_gate.storage.database import open_sqlite
from llm_gate.storage.schema import attempt, usage_record
from support.gateway import NATIVE_HEADERS, running_gateway
from support.media_vendors import FILM, KEYS, RATE, TRANSCRIPT, Flood, media_vendors, settings_at
from support.pictures import in_base64, picture, recording
from support.upstream import Answer
from support.wavespeed_fake import WaveSpeedFake, mp4
from support.web import call

ROOT = "/llm-gate/v1"
FLOOD = 300 * 1024 * 1024
MOST_MORE_KB = 150 * 1024
SORA = """
[[providers.openai.models]]
name = "sora-2"
operations = ["video"]
prices = [{ unit = "seconds", usd = "0.10" }]
media = { takes = ["size", "duration_s"], sizes = ["1280x720", "720x1280"], durations_s = [4, 8, 12] }
"""


@pytest.fixture(scope="module")
def wavespeed():
    with WaveSpeedFake() as fake:
        yield fake


@pytest.fixture(scope="module")
def all_vendors():
    with media_vendors() as running:
        yield running


@pytest.fixture(scope="module")
def gateway(all_vendors, wavespeed):
    with running_gateway(KEYS, toml=settings_at(all_vendors, wavespeed) + SORA) as running:
        yield running


@pytest.fixture
def vendors(all_vendors):
    """Expect of every test that no vendor was sent what breaks its contract."""
    all_vendors.forget()
    yield all_vendors
    found = list(all_vendors.violations)
    all_vendors.violations.clear()
    assert found == []


@pytest.fixture
def user(request):
    return f"user-{hashlib.sha256(request.node.name.encode()).hexdigest()[:16]}"


@pytest.fixture
def client(gateway, user):
    headers = {"X-User-Id": user}
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, default_headers=headers
    ) as made:
        yield made


def ask(gateway, user, path, body):
    return call(gateway.url, f"{ROOT}{path}", body, {**NATIVE_HEADERS, "X-User-Id": user})


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def rows(gateway, table, wanted):
    database = open_sqlite(gateway.folder / "data")
    try:
        return database.ask(lambda c: c.execute(select(table).where(wanted)).all())
    finally:
        database.close()


def recorded(gateway, user):
    """Return the one record of a user, and its attempts in their order."""
    deadline = time.monotonic() + 5
    while not (found := rows(gateway, usage_record, usage_record.c.user_id == user)):
        assert time.monotonic() < deadline, f"there is no record of {user}"
        time.sleep(0.05)
    (record,) = found
    attempts = rows(gateway, attempt, attempt.c.record_id == record.id)
    return record, sorted(attempts, key=lambda each: each.number)


def followed(gateway, user, job_id, patience_s=15.0):
    """Return how a job ended."""
    deadline = time.monotonic() + patience_s
    while True:
        shown = ask(gateway, user, f"/jobs/{job_id}", None).json
        if shown["status"] in {"succeeded", "failed", "cancelled"}:
            return shown
        assert time.monotonic() < deadline, shown
        time.sleep(0.1)


def memory_kb(gateway):
    """Return the most memory that the gateway has held and what it holds now, in kilobytes."""
    text = Path(f"/proc/{gateway.process.pid}/status").read_text(encoding="ascii")
    return [int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) for name in ("VmHWM", "VmRSS")]


def peak_kb(gateway):
    """Let the most memory that was held count anew, and return it."""
    Path(f"/proc/{gateway.process.pid}/clear_refs").write_text("5", encoding="ascii")
    return memory_kb(gateway)[0]


@pytest.mark.parametrize(
    ("model", "size", "kind", "measured"),
    [
        ("openai/gpt-image-2", "1024x1024", "PNG", (1024, 1024)),
        ("openai/gpt-image-2.5-flare", "1536x1024", "PNG", (1536, 1024)),
        ("gemini/gemini-3.1-flash-image", "1024x1024", "PNG", (1024, 1024)),
        ("gemini/gemini-3-pro-image", "1600x900", "PNG", (1024, 576)),
        ("stability/stable-image-core", "1024x1024", "PNG", (96, 64)),
        ("stability/sd3.5-large", "1600x900", "PNG", (96, 64)),
        ("wavespeed/qwen-image", "512x512", "PNG", (4, 3)),
        ("huggingface/black-forest-labs/FLUX.1-Krea-dev", "640x384", "JPEG", (640, 384)),
        ("xai/grok-imagine-image", "1024x1024", "JPEG", (64, 64)),
    ],
)
def test_pictures_by_the_official_client(gateway, vendors, client, user, model, size, kind, measured):
    """Every vendor's picture comes as base64 that opens, of the size that the vendor made, and is recorded."""
    answer = client.images.with_raw_response.generate(
        model=model, prompt="A cat", size=size, response_format="b64_json"
    )
    (made,) = answer.parse().data
    image = opened(base64.b64decode(made.b64_json))

    assert (image.format, image.size) == (kind, measured)
    record, (only,) = recorded(gateway, user)
    assert (record.operation, record.status, record.attempts) == ("image", "ok", 1)
    assert f"{only.provider}/{only.model}" == model
    assert float(answer.headers["x-llm-gate-cost-usd"]) > 0
    assert record.cost_nanos == round(float(answer.headers["x-llm-gate-cost-usd"]) * 10**9)
    assert vendors.violations == []


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-image-2"),
        ("gemini", "gemini-3.1-flash-image"),
        ("stability", "stable-image-ultra"),
        ("wavespeed", "ideogram-v3-turbo"),
        ("huggingface", "black-forest-labs/FLUX.1-Krea-dev"),
    ],
)
def test_pictures_natively(gateway, vendors, user, provider, model):
    """The link leads to the picture, whose width and height are those of its bytes."""
    body = {
        "provider": {"name": provider, "model": {"name": model}},
        "prompt": {"message": "A cat", "parameter": {"size": "1024x1024"}},
    }
    answer = ask(gateway, user, "/images/generations", body)
    assert answer.status == 200, answer.body
    (made,) = answer.json["data"]
    got = call(gateway.url, made["url"].removeprefix(gateway.url))

    assert got.headers["content-type"] == made["type"]
    assert opened(got.body).size == (made["width"], made["height"])
    assert answer.json["provider"]["name"] == provider
    assert answer.json["cost"]["total"] > 0
    assert vendors.violations == []


@pytest.mark.parametrize(
    ("model", "measured", "extra"),
    [
        ("openai/gpt-image-2", (1024, 1024), {}),
        ("gemini/gemini-3.1-flash-image", (1024, 1024), {}),
        ("wavespeed/qwen-edit-plus", (4, 3), {}),
        ("wavespeed/flux-kontext-pro", (4, 3), {}),
        ("stability/sd3.5-large", (96, 64), {}),
        ("stability/stable-image-inpaint", (96, 64), {}),
        ("stability/stable-image-remove-background", (96, 64), {}),
        ("stability/stable-image-replace-background", (96, 64), {}),
        ("stability/stable-image-outpaint", (96, 64), {"left": 20}),
        ("stability/stable-image-search-and-replace", (96, 64), {"search_prompt": "a hat"}),
        ("huggingface/black-forest-labs/FLUX.1-Kontext-dev", (80, 60), {}),
        ("xai/grok-imagine-image", (64, 64), {}),
    ],
)
def test_edits_by_the_official_client(gateway, vendors, client, user, model, measured, extra):
    """A picture goes in as a file, and what the vendor made of it comes out."""
    answer = client.images.edit(
        model=model,
        image=("a.png", picture(200, 100)),
        prompt="Add a hat",
        response_format="b64_json",
        extra_body=extra,
    )

    assert opened(base64.b64decode(answer.data[0].b64_json)).size == measured
    record, _ = recorded(gateway, user)
    assert (record.operation, record.status) == ("image_edit", "ok")
    assert record.cost_nanos > 0
    assert vendors.violations == []


@pytest.mark.parametrize("model", ["openai/gpt-image-2", "gemini/gemini-3.1-flash-image"])
def test_several_pictures_become_one(gateway, vendors, client, user, model):
    """Two pictures go in, and both arrive at the vendor as they are."""
    given = [("a.png", picture(80, 40)), ("b.jpg", picture(50, 60, "JPEG"))]
    made = client.images.edit(model=model, image=given, prompt="Both", response_format="b64_json")

    assert opened(base64.b64decode(made.data[0].b64_json))
    (heard,) = vendors.heard
    if heard.vendor == "openai":
        seen = [each.data for each in heard.form["image[]"]]
    else:
        parts = heard.json["contents"][0]["parts"]
        seen = [base64.b64decode(part["inlineData"]["data"]) for part in parts if "inlineData" in part]
    assert seen == [data for _, data in given]
    assert recorded(gateway, user)[0].status == "ok"


@pytest.mark.parametrize(
    "model", ["image-face-swap-pro", "image-head-swap", "akool-face-swap", "infinite-you"]
)
def test_face_swaps(gateway, vendors, wavespeed, user, model):
    """Both pictures reach the vendor, and a picture comes back."""
    base, face = picture(90, 60), picture(30, 30, colour="blue")
    body = {
        "provider": {"name": "wavespeed", "model": {"name": model}},
        "baseImage": in_base64(base),
        "faceImage": in_base64(face),
        "parameter": {"responseFormat": "b64_json"},
    }
    answer = ask(gateway, user, "/images/face-swaps", body)
    assert answer.status == 200, answer.body
    (made,) = answer.json["data"]

    assert opened(base64.b64decode(made["b64_json"])).size == (made["width"], made["height"]) == (4, 3)
    sent = json.dumps(wavespeed.submissions[-1].payload)
    assert in_base64(base) in sent
    assert in_base64(face) in sent
    assert recorded(gateway, user)[0].operation == "face_swap"
    assert vendors.heard == []


@pytest.mark.parametrize(
    ("model", "voice", "seconds"),
    [
        ("openai/gpt-4o-mini-tts", "alloy", 0.5),
        ("openai/tts-1", "nova", 0.5),
        ("gemini/gemini-3.8-flash-tts", "Kore", 0.5),
        ("wavespeed/minimax/speech-02-hd", "Wise_Woman", 1.0),
    ],
)
def test_voices(gateway, vendors, client, user, model, voice, seconds):
    """A WAV comes back that plays as long as what the vendor made."""
    made = client.audio.speech.create(
        model=model, input="Hello there", voice=voice, response_format="wav"
    ).read()

    with wave.open(io.BytesIO(made)) as file:
        assert file.getnframes() / file.getframerate() == pytest.approx(seconds, abs=0.01)
        assert file.getframerate() in {RATE, 8_000}
    record, _ = recorded(gateway, user)
    assert (record.operation, record.status) == ("speech", "ok")
    assert vendors.violations == []


@pytest.mark.parametrize("model", ["openai/gpt-transcribe", "openai/whisper-1", "gemini/gemini-3.8-flash"])
def test_transcripts(gateway, vendors, client, user, model):
    """The recording reaches the vendor, and its words come back."""
    heard = client.audio.transcriptions.create(model=model, file=("talk.wav", recording(2)))

    assert heard.text.strip() == TRANSCRIPT
    record, _ = recorded(gateway, user)
    assert (record.operation, record.status) == ("transcription", "ok")
    assert record.cost_nanos > 0
    assert vendors.violations == []


@pytest.mark.filterwarnings("ignore:The Sora API")
@pytest.mark.parametrize(
    ("model", "seconds", "film", "nanos"),
    [
        ("wavespeed/hunyuan-video-1.5", "5", mp4(), 200_000_000),
        ("gemini/veo-3.1-generate-preview", "4", FILM, 1_600_000_000),
        ("huggingface/tencent/HunyuanVideo", None, FILM, 100_000_000),
        ("openai/sora-2", "4", FILM, 400_000_000),
    ],
    ids=["wavespeed", "gemini", "huggingface", "openai"],
)
def test_films_by_the_official_client(gateway, vendors, client, user, model, seconds, film, nanos):
    """A film is ordered, followed, and downloaded as the bytes that the vendor made."""
    said = {} if seconds is None else {"seconds": seconds}
    job = client.videos.create(model=model, prompt="Waves", **said)
    assert job.status in {"queued", "in_progress"}
    deadline = time.monotonic() + 18
    seen = [job.progress]
    while job.status not in {"completed", "failed"}:
        assert time.monotonic() < deadline, job
        time.sleep(0.2)
        job = client.videos.retrieve(job.id)
        seen.append(job.progress)
    assert job.status == "completed", job.error

    assert seen == sorted(seen)
    assert client.videos.download_content(job.id).read() == film
    record, _ = recorded(gateway, user)
    assert (record.operation, record.status, record.cost_nanos) == ("video", "ok", nanos)
    assert vendors.violations == []


def native_film(gateway, user, provider, model, **parameter):
    body = {
        "provider": {"name": provider, "model": {"name": model}},
        "prompt": {"message": "Waves", "parameter": parameter},
    }
    answer = ask(gateway, user, "/videos", body)
    assert answer.status == 202, answer.body
    return followed(gateway, user, answer.json["id"])


def test_a_film_that_its_vendor_fails(gateway, wavespeed, vendors, user):
    """A task that the vendor reports as failed ends the job as failed and costs nothing."""
    wavespeed.plan(
        "lightricks/ltx-2-fast/text-to-video", states=("processing", "failed"), at_once="processing"
    )
    end = native_film(gateway, user, "wavespeed", "ltx-2-fast", duration=6)

    assert (end["status"], end["cost"]["total"]) == ("failed", 0)
    assert recorded(gateway, user)[0].cost_nanos == 0
    assert vendors.heard == []


SPENT = {"error": {"message": "You ran out.", "type": "insufficient_quota", "code": "insufficient_quota"}}


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (Answer.json({"error": {"message": "broken", "type": "server_error"}}, 500), 500),
        (Answer.json(SPENT, 429), 429),
        (Answer(503, {"content-type": "text/html"}, b"<html>down</html>"), 503),
    ],
    ids=["500", "quota exhausted", "503 as HTML"],
)
def test_the_next_vendor_makes_the_picture(gateway, vendors, user, failure, told):
    """A vendor that refuses is followed by the next, and both headers and record say so."""
    vendors.plan("openai", failure)
    body = {"model": "openai/gpt-image-2", "prompt": "A cat"}
    headers = {"X-User-Id": user, "x-llm-gate-fallbacks": "stability/stable-image-core"}
    answer = call(gateway.url, "/v1/images/generations", body, headers)
    assert answer.status == 200, answer.body

    assert opened(base64.b64decode(answer.json["data"][0]["b64_json"])).size == (96, 64)
    assert answer.headers["x-llm-gate-attempts"] == "2"
    assert answer.headers["x-llm-gate-provider"] == "stability"
    record, attempts = recorded(gateway, user)
    assert [(each.provider, each.status) for each in attempts] == [
        ("openai", "failed"),
        ("stability", "ok"),
    ]
    assert attempts[0].upstream_status == told
    assert (record.provider, record.attempts, record.cost_nanos) == ("stability", 2, 30_000_000)


def noisy(width, height):
    """Return a PNG that hardly compresses, so that a part of it lacks pixels."""
    out = io.BytesIO()
    Image.effect_noise((width, height), 90).save(out, "PNG")
    return out.getvalue()


def bomb():
    """Return a small PNG whose head promises 30,000 by 30,000 pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(300_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def wrapped(vendor, data):
    """Return a vendor's answer that holds these bytes as its picture."""
    text = in_base64(data)
    if vendor == "openai":
        return Answer.json({"data": [{"b64_json": text}]})
    if vendor == "stability":
        return Answer.json({"image": text, "finish_reason": "SUCCESS", "seed": 1})
    part = {"inlineData": {"mimeType": "image/png", "data": text}}
    return Answer.json({"candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}]})


HTML = b"<!doctype html><html><body>Welcome</body></html>"
MODELS = {
    "openai": "openai/gpt-image-2",
    "gemini": "gemini/gemini-3.1-flash-image",
    "stability": "stability/stable-image-core",
}


@pytest.mark.parametrize("vendor", MODELS)
@pytest.mark.parametrize("fault", ["html", "empty", "null", "cut", "bomb", "html inside"])
def test_what_is_no_picture_is_an_error_of_the_vendor(gateway, vendors, user, vendor, fault):
    """Whatever it is, both surfaces answer 502 in their own shape, and the gateway lives on."""
    answer = {
        "html": Answer(headers={"content-type": "text/html"}, body=HTML),
        "empty": Answer(headers={"content-type": "application/json"}),
        "null": Answer.json(None),
        "cut": wrapped(vendor, noisy(300, 200)[:20_000]),
        "bomb": wrapped(vendor, bomb()),
        "html inside": wrapped(vendor, HTML),
    }[fault]
    vendors.plan(vendor, answer, answer)
    before = peak_kb(gateway)
    provider, _, model = MODELS[vendor].partition("/")
    who = {"name": provider, "model": {"name": model}}
    quote = ask(gateway, "planner", "/quotes", {"operations": [{"operation": "image", "provider": who}]})
    most = round(quote.json["cost"]["max"] * 10**9)
    body = {"model": MODELS[vendor], "prompt": "A cat"}
    plain = call(gateway.url, "/v1/images/generations", body, {"X-User-Id": user})
    body = {"provider": who, "prompt": {"message": "A cat"}}
    native = ask(gateway, f"{user}-native", "/images/generations", body)

    assert (plain.status, native.status) == (502, 502), (plain.body, native.body)
    assert plain.json["error"].keys() >= {"message", "type", "code", "param"}
    assert native.json["errorDetails"][0].keys() >= {"statusCode", "message", "details"}
    assert provider in native.json["errorDetails"][0]["message"]
    assert provider in plain.json["error"]["message"]
    assert vendors.count(vendor) == 2
    for caller in (user, f"{user}-native"):
        record, (only,) = recorded(gateway, caller)
        assert (record.status, only.status) == ("failed", "failed")
        # What a vendor answered it may have billed: that much is held to be spent, and told not to be measured.
        assert record.cost_nanos <= most
        assert record.quality != "measured" or record.cost_nanos == 0
    assert memory_kb(gateway)[0] - before < MOST_MORE_KB
    assert call(gateway.url, "/healthz").status == 200


@pytest.mark.parametrize("fault", ["html", "empty", "cut", "bomb", "gone"])
def test_what_is_downloaded_is_checked_too(gateway, vendors, user, fault):
    """A picture that lies elsewhere and is none, or is gone, is an error of the vendor that named it."""
    made = {
        "html": Answer(headers={"content-type": "text/html"}, body=HTML),
        "empty": Answer(headers={"content-type": "image/jpeg"}),
        "cut": Answer(headers={"content-type": "image/jpeg"}, body=noisy(300, 200)[:20_000]),
        "bomb": Answer(headers={"content-type": "image/png"}, body=bomb()),
        "gone": Answer(404, {"content-type": "text/plain"}, b"gone"),
    }[fault]
    vendors.plan("files", *[made] * 5)
    body = {"model": "huggingface/black-forest-labs/FLUX.1-Krea-dev", "prompt": "A cat"}
    answer = call(gateway.url, "/v1/images/generations", body, {"X-User-Id": user})

    # What is gone cannot be had (503); what came and is no picture is a faulty answer.
    assert answer.status == (503 if fault == "gone" else 502), answer.body
    assert answer.json["error"]["message"]
    assert vendors.count("fal-ai") == 1
    assert recorded(gateway, user)[0].status == "failed"


@pytest.mark.parametrize("vendor", ["openai", "gemini"])
@pytest.mark.parametrize("fault", ["html", "empty"])
def test_what_is_no_voice_or_transcript_is_an_error_of_the_vendor(gateway, vendors, user, vendor, fault):
    """A page or nothing instead of a voice or words is a 502."""
    answer = Answer(headers={"content-type": "text/html"}, body=HTML if fault == "html" else b"")
    vendors.plan(vendor, answer, answer)
    models = {
        "openai": ("openai/tts-1", "openai/gpt-transcribe"),
        "gemini": ("gemini/gemini-3.8-flash-tts", "gemini/gemini-3.8-flash"),
    }[vendor]
    headers = {"X-User-Id": user}
    with openai.OpenAI(
        base_url=f"{gateway.url}/v1", api_key="any", max_retries=0, default_headers=headers
    ) as client:
        with pytest.raises(openai.InternalServerError) as voice:
            client.audio.speech.create(
                model=models[0], input="Hi", voice="Kore" if vendor == "gemini" else "nova"
            )
        with pytest.raises(openai.InternalServerError) as words:
            client.audio.transcriptions.create(model=models[1], file=("a.wav", recording()))

    assert (voice.value.status_code, words.value.status_code) == (502, 502)


@pytest.mark.parametrize("promised", [True, False], ids=["promised", "in chunks"])
@pytest.mark.parametrize(
    ("vendor", "model", "head"),
    [
        ("openai", "openai/gpt-image-2", b'{"data": [{"b64_json": "'),
        ("gemini", "gemini/gemini-3.1-flash-image", b'{"candidates": [{"content": {"parts": [{"text": "'),
        ("stability", "stability/stable-image-core", b'{"image": "'),
        ("files", "huggingface/black-forest-labs/FLUX.1-Krea-dev", b"\x89PNG\r\n\x1a\n"),
    ],
    ids=["openai", "gemini", "stability", "a download"],
)
def test_an_answer_too_large_is_not_taken_in(gateway, vendors, user, vendor, model, head, promised):
    """300 MB are refused before they fill the memory, whether their length is told or not."""
    before = peak_kb(gateway)
    vendors.flooded = 0
    flood = Flood(FLOOD, head, "image/png" if vendor == "files" else "application/json", promised)
    vendors.plan(vendor, flood, flood, flood)
    body = {"model": model, "prompt": "A cat"}
    answer = call(gateway.url, "/v1/images/generations", body, {"X-User-Id": user})
    most, _ = memory_kb(gateway)

    assert answer.status == 502, answer.body
    assert answer.json["error"]["message"]
    assert most - before < MOST_MORE_KB
    assert vendors.flooded < FLOOD
    assert recorded(gateway, user)[0].status == "failed"
    assert call(gateway.url, "/healthz").status == 200


@pytest.mark.parametrize("fault", ["too large", "a page", "no picture"])
def test_what_was_refused_is_let_go(gateway, vendors, user, fault):
    """Eight answers that are refused leave no more in the memory than one of them would."""
    size = 28 * 1024 * 1024
    faulty = {
        "too large": Flood(FLOOD, b'{"data": [{"b64_json": "'),
        "a page": Answer(headers={"content-type": "text/html"}, body=HTML.ljust(size)),
        "no picture": Answer.json({"data": [{"b64_json": in_base64(b"\x89PNG\r\n\x1a\n" + bytes(size))}]}),
    }[fault]
    body = {"model": "openai/gpt-image-2", "prompt": "A cat"}
    _, before = memory_kb(gateway)
    for _ in range(8):
        vendors.flooded = 0
        vendors.plan("openai", faulty)
        assert call(gateway.url, "/v1/images/generations", body, {"X-User-Id": user}).status == 502
    _, after = memory_kb(gateway)

    assert after - before < MOST_MORE_KB


OPENAI = {"Authorization": f"Bearer {KEYS['OPENAI_API_KEY']}"}
GEMINI = {"x-goog-api-key": KEYS["GEMINI_API_KEY"]}
STABILITY = {"Authorization": f"Bearer {KEYS['STABILITY_API_KEY']}", "accept": "application/json"}


@pytest.mark.parametrize(
    ("path", "body", "headers", "told"),
    [
        ("/openai/v1/images/generations", {"model": "gpt-image-2", "prompt": "x"}, {}, "credential"),
        ("/openai/v1/images/generations", {"model": "gpt-image-2"}, OPENAI, "prompt"),
        ("/openai/v1/images/generations", {"model": "gpt-image-2", "prompt": "x", "style": "x"}, OPENAI, "fields"),
        ("/openai/v1/images/edits", {"model": "gpt-image-2", "prompt": "x"}, OPENAI, "not as a form"),
        ("/openai/v1/audio/speech", {"model": "tts-1", "input": "x"}, OPENAI, "voice"),
        ("/gemini/v1beta/models/gemini-3.8-flash-tts:generateContent", {"contents": []}, GEMINI, "generationConfig"),
        ("/gemini/v1beta/models/x:generateContent", {"contents": []}, OPENAI, "credential"),
        ("/stability/v2beta/stable-image/generate/core", {"prompt": "x"}, STABILITY, "not as a form"),
        ("/fal-ai/fal-ai/flux/krea", {}, {}, "credential"),
        ("/files/file0", {}, OPENAI, "no such route"),
    ],
)  # fmt: skip
def test_the_vendors_notice_what_breaks_their_contracts(all_vendors, path, body, headers, told):
    """Each violation is a 400 that says what is wrong, and is kept."""
    try:
        assert call(all_vendors.url, path, body, headers).status == 400
        (kept,) = all_vendors.violations
        assert told in kept
    finally:
        all_vendors.violations.clear()


def test_where_a_model_is_served_is_not_asked_again(gateway, user, vendors):
    """The hub is asked where a model is served before the first picture at most, not before every one."""
    body = {
        "provider": {"name": "huggingface", "model": {"name": "black-forest-labs/FLUX.1-Krea-dev"}},
        "prompt": {"message": "A cat", "parameter": {"size": "64x64"}},
    }
    assert [ask(gateway, user, "/images/generations", body).status for _ in range(3)] == [200] * 3

    assert vendors.count("api", "GET") <= 1
