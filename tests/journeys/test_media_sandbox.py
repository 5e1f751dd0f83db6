"""Media as an application developer meets them without any vendor key: curl and the official client, on the sandbox."""

import base64
import io
import wave

import httpx
import openai
import pytest
from PIL import Image

from support.gateway import NATIVE_HEADERS, running_gateway
from support.pictures import picture, recording
from support.web import call

ROOT = "/llm-gate/v1"


@pytest.fixture(scope="module")
def gateway():
    with running_gateway() as running:
        yield running


@pytest.fixture(scope="module")
def client(gateway):
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as made:
        yield made


def ask(gateway, path, body):
    answer = call(gateway.url, f"{ROOT}{path}", body, NATIVE_HEADERS)
    assert answer.status in {200, 202}, answer.body
    return answer


def fetched(url):
    return httpx.get(url)


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def test_a_picture_by_the_documented_route(gateway):
    """The link leads to a real PNG of the asked size, which says that it is synthetic, and needs no key."""
    body = {
        "provider": {"name": "sandbox", "model": {"name": "image"}},
        "prompt": {"message": "A cat wearing a hat", "parameter": {"n": 2, "size": "320x200"}},
    }
    answer = ask(gateway, "/images/generations", body)
    links = [each["url"] for each in answer.json["data"]]

    assert len(set(links)) == 2
    for link in links:
        got = fetched(link)
        assert (got.status_code, got.headers["content-type"]) == (200, "image/png")
        assert opened(got.content).size == (320, 200)
    assert answer.json["synthetic"] is True
    assert answer.headers["x-llm-gate-synthetic"] == "true"
    assert answer.json["cost"] == {"total": 0, "currency": "USD"}


@pytest.mark.parametrize("change", ["signature", "expires", "id"])
def test_a_link_that_was_altered_leads_nowhere(gateway, change):
    """Whatever of a link is changed, there is nothing at it."""
    body = {"prompt": {"message": "x", "parameter": {"size": "64x64"}}}
    link = ask(gateway, "/images/generations", body).json["data"][0]["url"]
    path, _, query = link.partition("?")
    expires, _, signature = query.partition("&signature=")
    altered = {
        "signature": f"{path}?{expires}&signature={signature[:-2]}xx",
        "expires": f"{path}?{expires}0&signature={signature}",
        "id": f"{path[:-1]}{'0' if path[-1] != '0' else '1'}?{query}",
    }[change]

    assert fetched(link).status_code == 200
    assert fetched(altered).status_code == 404


def test_pictures_as_bytes_and_changed(gateway):
    """An edit and a face swap take base64 and data URLs, and give base64."""
    given = base64.b64encode(picture(200, 100)).decode()
    edit = {
        "images": [f"data:image/png;base64,{given}"],
        "prompt": {"message": "Make it blue", "parameter": {"responseFormat": "b64_json"}},
    }
    swap = {"baseImage": given, "faceImage": given, "parameter": {"responseFormat": "b64_json"}}
    for path, body in (("/images/edits", edit), ("/images/face-swaps", swap)):
        (made,) = ask(gateway, path, body).json["data"]
        assert opened(base64.b64decode(made["b64_json"])).size == (made["width"], made["height"])
        assert "url" not in made


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/images/generations", {"prompt": {"message": ""}}, "prompt.message"),
        ("/images/generations", {"prompt": {"message": "x", "parameter": {"n": 11}}}, "prompt.parameter.n"),
        ("/images/generations", {"prompt": {"message": "x", "parameter": {"size": "9"}}}, "prompt.parameter.size"),
        ("/images/generations", {"prompt": {"message": "x", "parameter": {"colour": 1}}}, "prompt.parameter.colour"),
        ("/images/generations", {"prompt": {"message": "x", "parameter": {"size": "4000x4000"}}}, "size"),
        ("/images/edits", {"images": ["nothing"], "prompt": {"message": "x"}}, "images[0]"),
        ("/images/edits", {"images": [], "prompt": {"message": "x"}}, "images"),
        ("/images/edits", {"images": ["aGVsbG8gd29ybGQ="], "prompt": {"message": "x"}}, "image"),
        ("/audio/transcriptions", {"audio": "?"}, "audio"),
        ("/videos", {"prompt": {"message": "x", "parameter": {"duration": 0}}}, "prompt.parameter.duration"),
        ("/videos", {"prompt": {"message": "x", "parameter": {"duration": 3000}}}, "duration_s"),
        ("/videos", {"prompt": {"message": "x"}, "webhook": "ftp://x"}, "webhook"),
    ],
)  # fmt: skip
def test_bad_input_is_named(gateway, path, body, param):
    """Each fault is a 400 that names its field, and nothing is made."""
    answer = call(gateway.url, f"{ROOT}{path}", body, NATIVE_HEADERS)

    assert answer.status == 400, answer.body
    assert param.rpartition(".")[2].partition("[")[0] in answer.body.decode()


def test_a_voice_is_read_back(gateway):
    """The sandbox's WAV carries its text, which its transcription reads back; other recordings it cannot hear."""
    text = "Grüße aus dem Sandkasten, 2 \u00d7 2 = 4"
    link = ask(gateway, "/audio/speech", {"prompt": {"message": text}}).json["data"][0]["url"]
    sound = fetched(link).content
    with wave.open(io.BytesIO(sound)) as file:
        assert file.getnframes() > 0
    heard = ask(gateway, "/audio/transcriptions", {"audio": base64.b64encode(sound).decode()}).json
    other = ask(gateway, "/audio/transcriptions", {"audio": base64.b64encode(recording()).decode()}).json

    assert heard["text"] == text
    assert "sandbox" in other["text"].lower()


def test_a_film_is_followed_to_its_end(gateway):
    """The events show progress that only grows, the end has cost and link, and the file has several frames."""
    body = {"prompt": {"message": "Waves at dawn", "parameter": {"duration": 2}}}
    job = ask(gateway, "/videos", body)
    assert (job.status, job.json["status"]) == (202, "queued")
    assert job.headers["location"] == f"{ROOT}/jobs/{job.json['id']}"
    events = call(gateway.url, f"{job.headers['location']}/events", headers=NATIVE_HEADERS).events
    shown = call(gateway.url, job.headers["location"], headers=NATIVE_HEADERS).json
    content = call(gateway.url, f"{job.headers['location']}/content", headers=NATIVE_HEADERS)

    progress = [event["progress"] for event in events]
    assert progress == sorted(progress)
    assert [events[0]["status"], events[-1]["status"], shown["status"]] == [
        "queued",
        "succeeded",
        "succeeded",
    ]
    assert shown["cost"] == {"total": 0, "currency": "USD"}
    assert content.headers["content-type"] == "image/gif"
    assert getattr(opened(content.body), "n_frames", 1) > 1
    assert fetched(shown["data"][0]["url"]).content == content.body


def test_a_film_that_fails_and_one_that_is_called_off(gateway):
    """A failed job says why and costs nothing; one called off ends as cancelled; neither has content."""
    failed = ask(gateway, "/videos", {"prompt": {"message": "This one must [fail]"}}).json["id"]
    end = call(gateway.url, f"{ROOT}/jobs/{failed}/events", headers=NATIVE_HEADERS).events[-1]
    assert (end["status"], end["cost"]["total"]) == ("failed", 0)
    assert end["error"]["code"]
    assert call(gateway.url, f"{ROOT}/jobs/{failed}/content", headers=NATIVE_HEADERS).status == 409

    slow = call(
        gateway.url,
        f"{ROOT}/videos",
        {"prompt": {"message": "slow"}},
        {**NATIVE_HEADERS, "x-llm-gate-sandbox": "delay_ms=20000"},
    ).json["id"]
    off = call(gateway.url, f"{ROOT}/jobs/{slow}", headers=NATIVE_HEADERS, method="DELETE")
    assert off.status == 202
    end = call(gateway.url, f"{ROOT}/jobs/{slow}/events", headers=NATIVE_HEADERS).events[-1]
    assert end["status"] == "cancelled"
    listed = call(gateway.url, f"{ROOT}/jobs?limit=2", headers=NATIVE_HEADERS).json
    assert [job["id"] for job in listed["data"]] == [slow, failed]
    other = {**NATIVE_HEADERS, "X-User-Id": "somebody-else"}
    assert call(gateway.url, f"{ROOT}/jobs/{slow}", headers=other).status == 404


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_the_official_client(client):
    """Pictures, edits, a voice, a transcript and a film with OpenAI's own client."""
    made = client.images.generate(model="sandbox/image", prompt="A cat", size="512x512", n=1)
    assert opened(base64.b64decode(made.data[0].b64_json)).size == (512, 512)
    linked = client.images.generate(model="sandbox/image", prompt="A cat", response_format="url")
    assert opened(fetched(linked.data[0].url).content).width == 1024
    edited = client.images.edit(model="sandbox/image-edit", image=("a.png", picture()), prompt="More hats")
    assert opened(base64.b64decode(edited.data[0].b64_json))
    spoken = client.audio.speech.create(
        model="sandbox/speech", input="Hello there", voice="alloy", response_format="wav"
    )
    sound = spoken.read()
    assert sound[:4] == b"RIFF"
    heard = client.audio.transcriptions.create(model="sandbox/transcription", file=("a.wav", sound))
    assert heard.text == "Hello there"
    subtitles = client.audio.transcriptions.create(
        model="sandbox/transcription", file=("a.wav", sound), response_format="srt"
    )
    assert "-->" in subtitles
    film = client.videos.create_and_poll(
        model="sandbox/video", prompt="Waves", seconds="4", poll_interval_ms=300
    )
    assert film.status == "completed"
    assert getattr(opened(client.videos.download_content(film.id).read()), "n_frames", 1) > 1
    assert client.videos.retrieve(film.id).progress == 100
    assert film.id in [each.id for each in client.videos.list()]


@pytest.mark.filterwarnings("ignore:The Sora API")
def test_the_official_client_reads_refusals(client):
    """What is refused comes as the client's own error, with the field that is wrong."""
    with pytest.raises(openai.BadRequestError) as refused:
        client.images.generate(model="sandbox/image", prompt="A cat", size="9000x9000")
    assert refused.value.param == "size"
    with pytest.raises(openai.BadRequestError):
        client.audio.speech.create(model="sandbox/speech", input="x", voice="alloy", response_format="mp3")
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve("no-such-film")
    with pytest.raises(openai.BadRequestError):
        client.images.edit(model="sandbox/image-edit", image=("a.png", b"no picture"), prompt="x")
