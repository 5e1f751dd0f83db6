"""Gemini's pictures, voices, transcripts and films: requests as they are sent, answers of every form, failures."""

import base64
import io
import json
import struct
import wave
from collections.abc import Generator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pytest

from llm_gate.dialects import gemini
from llm_gate.dialects.gemini_images import GeminiImages
from llm_gate.dialects.gemini_speech import GeminiSpeech
from llm_gate.dialects.gemini_transcription import GeminiTranscription
from llm_gate.dialects.gemini_videos import GeminiVideos, own_address
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import (
    BadProviderResponse,
    ContentFiltered,
    InvalidRequest,
    ProviderAuthFailed,
    ProviderModelGone,
    ProviderRateLimited,
    ProviderRejected,
    ProviderTimeout,
    ProviderUnavailable,
)
from llm_gate.domain.media import (
    ImageEditRequest,
    ImageRequest,
    Link,
    Medium,
    Segment,
    Speaker,
    SpeechRequest,
    TranscriptionRequest,
    VideoRequest,
)
from llm_gate.domain.provider import Facts, Fetch, HttpReply, JobView, Send, Target, Ticket, Wait
from tests.support.recorded import Interaction, Recording, parametrize, recordings
from tests.support.targets import CREDENTIAL, make_reply, make_target

ORIGIN = "https://generativelanguage.googleapis.com"
BASE = f"{ORIGIN}/v1beta"
FACTS = Facts(now_s=1_800_000_000.0, token="0123456789abcdef" * 2)
PNG = Medium(data=b"\x89PNG\r\n\x1a\n" + bytes(16), type="image/png")
JPEG = Medium(data=b"\xff\xd8\xff\xe0" + bytes(16), type="image/jpeg")
MP3 = Medium(data=b"ID3" + bytes(32), type="audio/mpeg", name="talk.mp3")
LONG = Medium(data=b"ID3" + bytes(14 * 1024 * 1024), type="audio/mpeg")
FILM = b"\0\0\0\x18ftypmp42" + bytes(16)
PCM = struct.pack("<4h", 0, 1000, -1000, 3)
L16 = "audio/L16;codec=pcm;rate=24000"
OPERATION = "models/veo-3.1/operations/abc123"
TICKET = Ticket(id=OPERATION)
DOWNLOAD = f"{BASE}/files/f1:download?alt=media"
VIEW = JobView(status="succeeded", data={"uri": DOWNLOAD})
PAGE = b"<!doctype html><html><body>Sign in</body></html>"

PICTURES = [*recordings("gemini", "image-output")]
SPOKEN = recordings("gemini", "tts")
FILMS = recordings("gemini", "video")
FILES = recordings("gemini", "files")
WRITTEN = [each for each in recordings("gemini", "audio-input") if "transcription" in each.id]
BLOCKED = [each for each in recordings("gemini", "errors") if "blocked" in each.id]


def target_of(model: str = "model-a", base_url: str = BASE, **spec: Any) -> Target:
    """Return a target; with any field given, its model has an entry in the catalog."""
    return make_target(
        provider="gemini",
        codecs=gemini.provider,
        base_url=base_url,
        model=model,
        media=MediaSpec(**spec) if spec else None,
    )


def drive(exchanges: Generator[Any, Any, Any], replies: Sequence[HttpReply | Exception]) -> tuple[Any, Any]:
    """Answer what is asked for in order; return what comes of it and what was asked for."""
    asked: list[Any] = []
    left = list(replies)
    wanted = next(exchanges)
    while True:
        asked.append(wanted)
        try:
            answer = None if isinstance(wanted, Wait) else left.pop(0)
            wanted = exchanges.throw(answer) if isinstance(answer, Exception) else exchanges.send(answer)
        except StopIteration as stop:
            assert not left
            return stop.value, asked


def once(codec: Any, request: Any, reply: HttpReply, target: Target | None = None) -> tuple[Any, Any]:
    """Run a codec that makes one exchange; return its result and the request's body."""
    result, (sent,) = drive(codec.run(request, target or target_of(), FACTS), [reply])
    assert sent.is_paid
    assert "authorization" not in sent.request.headers
    return result, json.loads(sent.request.body)


def answer(*parts: Any, reason: str | None = "STOP", **fields: Any) -> HttpReply:
    """Return an answer of one candidate."""
    candidate = {"content": {"role": "model", "parts": parts}, "finishReason": reason}
    return make_reply({"candidates": [candidate], **fields})


def part_of(medium: Medium) -> Any:
    """Return a part that holds a medium."""
    data = base64.b64encode(medium.data).decode()
    return {"inlineData": {"mimeType": medium.type, "data": data}}


def spoken(data: bytes = PCM, kind: str = L16) -> Any:
    """Return a part that holds samples."""
    return part_of(Medium(data=data, type=kind))


def recorded_reply(interaction: Interaction) -> HttpReply:
    """Return a recorded answer."""
    return HttpReply(status=interaction.status, headers=interaction.headers, body=interaction.body)


def recorded_request(interaction: Interaction) -> Any:
    """Return a recorded request, which every recording here has."""
    assert interaction.request is not None
    return interaction.request


def model_of(interaction: Interaction) -> str:
    """Return the model's name in the address of a recorded request."""
    return recorded_request(interaction)["url"].rpartition("/")[2].partition(":")[0]


@parametrize("recording", PICTURES)
def test_recorded_pictures_are_read(recording: Recording):
    """Every recorded picture is found with its type and counts, and the words instead of one are an error."""
    (interaction,) = recording.interactions
    said = recorded_request(interaction)
    model = model_of(interaction)
    request = ImageRequest(model=model, prompt=said["body"]["contents"][0]["parts"][0]["text"])
    exchanges = GeminiImages().run(request, target_of(model), FACTS)
    sent = next(exchanges)
    body = json.loads(sent.request.body)
    assert sent.request.method == "POST"
    assert urlsplit(sent.request.url).path == f"/v1beta/models/{model}:generateContent"
    assert body["contents"][0]["parts"] == said["body"]["contents"][0]["parts"]
    modalities = said["body"]["generationConfig"].get("responseModalities", ["TEXT", "IMAGE"])
    assert body["generationConfig"] == {"responseModalities": modalities}
    counts = interaction.json["usageMetadata"]
    if "text-instead" in recording.id:
        with pytest.raises(BadProviderResponse, match="holds no picture") as broken:
            exchanges.send(recorded_reply(interaction))
        assert broken.value.detail.startswith("In a hidden cave, a shy axolotl named Pip")
        assert broken.value.status == 200
        assert not broken.value.is_unbilled
        return
    with pytest.raises(StopIteration) as stop:
        exchanges.send(recorded_reply(interaction))
    result = stop.value.value
    (picture,) = result.pictures
    kind = "image/png" if "and-text" in recording.id else "image/jpeg"
    assert picture.medium.type == kind
    assert result.model == model
    assert result.usage.input_tokens == counts["promptTokenCount"]
    assert result.usage.output_tokens == counts["candidatesTokenCount"]
    assert result.usage.image_output_tokens == counts["candidatesTokensDetails"][0]["tokenCount"] > 0


def test_a_picture_request_says_ratio_and_size():
    """Ratio, size and seed are settings, fields of the catalog too, and a caller's own stand beside all that."""
    request = ImageRequest(
        model="m",
        prompt="A cat.",
        aspect_ratio="16:9",
        resolution="2K",
        seed=7,
        extra={
            "safetySettings": [{"category": "X"}],
            "generationConfig": {
                "topP": 0.5,
                "responseModalities": ["AUDIO"],
                "imageConfig": {"aspectRatio": "1:1", "a": 1},
            },
            "contents": [],
        },
    )
    _, body = once(GeminiImages(), request, answer(part_of(PNG)), target_of(fields={"temperature": 0.5}))
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "A cat."}]}],
        "safetySettings": [{"category": "X"}],
        "generationConfig": {
            "responseModalities": ["TEXT", "IMAGE"],
            "imageConfig": {"aspectRatio": "16:9", "imageSize": "2K", "a": 1},
            "seed": 7,
            "temperature": 0.5,
            "topP": 0.5,
        },
    }


def test_an_edit_sends_its_pictures():
    """An edit has its words first, then every picture, and no word about a mask."""
    request = ImageEditRequest(model="m", prompt="Make it blue.", images=(PNG, JPEG))
    _, body = once(GeminiImages(), request, answer(part_of(PNG)))
    assert body["contents"][0]["parts"] == [{"text": "Make it blue."}, part_of(PNG), part_of(JPEG)]


def test_a_mask_is_a_further_picture():
    """A mask comes last, and the words say what it is, where the catalog lets a model take one."""
    request = ImageEditRequest(model="m", prompt="A hat.", images=(PNG,), mask=JPEG, task="inpaint")
    _, body = once(GeminiImages(), request, answer(part_of(PNG)), target_of(takes=("mask",)))
    text, *pictures = body["contents"][0]["parts"]
    assert pictures == [part_of(PNG), part_of(JPEG)]
    assert text["text"].startswith("A hat.\nThe last picture is a mask")


@pytest.mark.parametrize("spec", [{}, {"takes": ("aspect_ratio",)}])
def test_a_mask_is_refused_where_nothing_is_known_of_it(spec):
    """Without the catalog's word a mask is refused."""
    request = ImageEditRequest(model="m", prompt="A hat.", images=(PNG,), mask=JPEG)
    with pytest.raises(InvalidRequest) as refused:
        next(GeminiImages().run(request, target_of(**spec), FACTS))
    assert refused.value.param == "mask"


def test_a_task_is_said_in_words():
    """What is to be done is put into words, so that it needs no prompt."""
    request = ImageEditRequest(model="m", images=(PNG,), task="remove_background")
    _, body = once(GeminiImages(), request, answer(part_of(PNG)))
    assert "Remove the background" in body["contents"][0]["parts"][0]["text"]


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ImageRequest(model="m", prompt="A cat.", n=2), "n"),
        (ImageRequest(model="m", prompt="A cat.", width=64, height=64), "size"),
        (ImageRequest(model="m", prompt="A cat.", style="vivid"), "style"),
        (ImageRequest(model="m", prompt="A cat.", quality="high"), "quality"),
        (ImageRequest(model="m", prompt="A cat.", guidance_scale=7.0), "guidance_scale"),
        (ImageRequest(model="m", prompt="A cat.", negative_prompt="dog"), "negative_prompt"),
        (ImageRequest(model="m", prompt="A cat.", steps=3), "steps"),
        (ImageEditRequest(model="m", images=(PNG,)), "prompt"),
        (ImageEditRequest(model="m", images=(Link(url="https://a.test/b"),), prompt="x"), "image"),
    ],
)
def test_what_pictures_cannot_do_is_refused(request_, param):
    """A wish without a field is refused before anything is sent."""
    with pytest.raises(InvalidRequest) as refused:
        next(GeminiImages().run(request_, target_of(), FACTS))
    assert refused.value.param == param


def test_a_model_name_cannot_lead_elsewhere():
    """A name with steps in it is no name."""
    request = ImageRequest(model="m", prompt="A cat.")
    with pytest.raises(InvalidRequest):
        next(GeminiImages().run(request, target_of("../x"), FACTS))


def test_thoughts_are_no_pictures():
    """A picture that was only thought of is left out; the type is that of the bytes."""
    thought = {**part_of(JPEG), "thought": True}
    told = part_of(Medium(data=PNG.data, type="image/jpeg"))
    result, _ = once(
        GeminiImages(), ImageRequest(model="m", prompt="A cat."), answer(thought, {"text": "Here."}, told)
    )
    assert [picture.medium.type for picture in result.pictures] == ["image/png"]
    assert result.usage is None


IMAGE_USAGE = {"promptTokenCount": 5, "candidatesTokenCount": 40}
NOTHING = {"promptTokenCount": 5}


@pytest.mark.parametrize("codec", ["image", "speech", "transcription"])
@pytest.mark.parametrize(
    ("reply", "kind", "is_unbilled"),
    [
        (make_reply(b""), BadProviderResponse, False),
        (make_reply(PAGE, content_type="text/html"), BadProviderResponse, False),
        (make_reply(b"null"), BadProviderResponse, False),
        (make_reply(b"[]"), BadProviderResponse, False),
        (make_reply(b'{"candidates": 3}'), BadProviderResponse, False),
        (make_reply({}), BadProviderResponse, False),
        (make_reply({"candidates": []}), BadProviderResponse, False),
        (answer(), BadProviderResponse, False),
        (answer(reason=None), BadProviderResponse, False),
        (answer(reason="OTHER"), BadProviderResponse, False),
        (answer(reason="NO_IMAGE"), BadProviderResponse, False),
        (answer(reason="MALFORMED_RESPONSE"), BadProviderResponse, False),
        (answer({"inlineData": {"mimeType": "image/png", "data": "%%"}}), BadProviderResponse, False),
        (answer({"inlineData": {"mimeType": L16, "data": ""}}), BadProviderResponse, False),
        (answer(reason="SAFETY", usageMetadata=IMAGE_USAGE), ContentFiltered, False),
        (answer(reason="IMAGE_SAFETY", usageMetadata=NOTHING), ContentFiltered, True),
        (answer(reason="PROHIBITED_CONTENT"), ContentFiltered, True),
        (make_reply({"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}), ContentFiltered, True),
        (make_reply({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}), ProviderRateLimited, True),
        (make_reply({"error": {"code": 503, "status": "UNAVAILABLE"}}), ProviderUnavailable, True),
    ],
)
def test_an_answer_without_what_was_asked_is_an_error(codec, reply, kind, is_unbilled):
    """Nothing but what was asked for passes; what the vendor's policy blocked and what it could not do is told."""
    codecs: Any = {
        "image": (GeminiImages(), ImageRequest(model="m", prompt="A cat."), "picture"),
        "speech": (GeminiSpeech(), SpeechRequest(model="m", text="Hello."), "voice"),
        "transcription": (GeminiTranscription(), TranscriptionRequest(model="m", audio=MP3), "transcript"),
    }
    made, request, what = codecs[codec]
    with pytest.raises(kind) as raised:
        once(made, request, reply)
    assert type(raised.value) is kind
    assert raised.value.is_unbilled is is_unbilled
    if kind is BadProviderResponse and b"MALFORMED" not in reply.body:
        assert f"holds no {what}" in raised.value.message
        assert raised.value.status == 200


@parametrize("recording", BLOCKED)
def test_recorded_refusals_are_read(recording: Recording):
    """Recorded answers that the vendor's policy blocked say so, in its own words."""
    (interaction,) = recording.interactions
    with pytest.raises(ContentFiltered, match="violated") as raised:
        once(GeminiImages(), ImageRequest(model="m", prompt="A cat."), recorded_reply(interaction))
    assert raised.value.is_unbilled is ("prompt" in recording.id)


def test_words_instead_of_a_picture_give_no_secret_away():
    """The excerpt of the words never holds the credential."""
    with pytest.raises(BadProviderResponse) as broken:
        once(
            GeminiImages(),
            ImageRequest(model="m", prompt="A cat."),
            answer({"text": f"I know {CREDENTIAL}."}),
        )
    assert CREDENTIAL not in broken.value.detail
    assert broken.value.detail.startswith("I know ")


PREDICT = {"fields": {"form": "predict", "personGeneration": "dont_allow"}}
PREDICTED = {"bytesBase64Encoded": base64.b64encode(PNG.data).decode(), "mimeType": "image/png"}


def test_a_prediction_is_asked_for():
    """Where the catalog says so, pictures are asked for as predictions, without the word that says so."""
    request = ImageRequest(
        model="m",
        prompt="A cat.",
        n=2,
        aspect_ratio="1:1",
        guidance_scale=7.5,
        extra={"language": "en", "sampleCount": 4},
    )
    exchanges = GeminiImages().run(request, target_of("imagen-4", **PREDICT), FACTS)
    sent = next(exchanges)
    assert sent.is_paid
    assert sent.request.url == f"{BASE}/models/imagen-4:predict"
    assert json.loads(sent.request.body) == {
        "instances": [{"prompt": "A cat."}],
        "parameters": {
            "sampleCount": 2,
            "aspectRatio": "1:1",
            "guidanceScale": 7.5,
            "includeRaiReason": True,
            "personGeneration": "dont_allow",
            "language": "en",
        },
    }
    with pytest.raises(StopIteration) as stop:
        exchanges.send(make_reply({"predictions": [PREDICTED, {"raiFilteredReason": "It shows a face."}]}))
    result = stop.value.value
    assert [picture.medium for picture in result.pictures] == [PNG]
    assert result.notes == ("a picture was withheld: It shows a face.",)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"predictions": [{"raiFilteredReason": "No."}]}, ContentFiltered),
        ({"predictions": []}, BadProviderResponse),
        ({}, BadProviderResponse),
        (PAGE, BadProviderResponse),
        (b"null", BadProviderResponse),
        ({"predictions": [{"bytesBase64Encoded": "aGVsbG8="}]}, BadProviderResponse),
        ({"error": {"code": 404, "status": "NOT_FOUND"}}, ProviderModelGone),
    ],
)
def test_predictions_without_pictures_are_errors(body, kind):
    """Filtered and empty predictions are told apart."""
    with pytest.raises(kind) as raised:
        once(GeminiImages(), ImageRequest(model="m", prompt="A cat."), make_reply(body), target_of(**PREDICT))
    assert raised.value.is_unbilled is (kind is not BadProviderResponse)


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        (ImageEditRequest(model="m", prompt="x", images=(PNG,)), "image"),
        (ImageRequest(model="m", prompt="x", seed=1), "seed"),
    ],
)
def test_predictions_know_no_edit_and_no_seed(request_, param):
    """What that form cannot do is refused."""
    with pytest.raises(InvalidRequest) as refused:
        next(GeminiImages().run(request_, target_of(**PREDICT), FACTS))
    assert refused.value.param == param


@parametrize("recording", SPOKEN)
def test_a_recorded_voice_is_read(recording: Recording):
    """The request is the recorded one, and the samples become a WAV file that other readers understand."""
    (interaction,) = recording.interactions
    said = recorded_request(interaction)["body"]
    text = said["contents"][0]["parts"][0]["text"]
    result, body = once(
        GeminiSpeech(), SpeechRequest(model="m", text=text, voice="Kore"), recorded_reply(interaction)
    )
    assert body == {name: value for name, value in said.items() if name != "model"}
    data = interaction.json["candidates"][0]["content"]["parts"][0]["inlineData"]["data"]
    samples = base64.b64decode(data)
    with wave.open(io.BytesIO(result.audio.data)) as read:
        assert (read.getnchannels(), read.getsampwidth(), read.getframerate()) == (1, 2, 24000)
        assert read.readframes(read.getnframes()) == samples
    assert len(result.audio.data) == 44 + len(samples)
    assert result.audio.type == "audio/wav"
    assert result.duration_s == pytest.approx(len(samples) / 48000)
    assert result.usage.audio_output_tokens == 111


@pytest.mark.parametrize(
    ("kind", "rate", "channels"),
    [
        ("audio/L16;codec=pcm;rate=16000", 16000, 1),
        ("audio/pcm; rate=48000; channels=2", 48000, 2),
        ("audio/L16", 24000, 1),
    ],
)
def test_the_rate_is_the_one_given(kind, rate, channels):
    """The head of the file says the rate and channels of the answer; half a sample at the end is left out."""
    result, _ = once(
        GeminiSpeech(),
        SpeechRequest(model="m", text="Hello.", format="WAV"),
        answer(spoken(kind=kind), spoken(data=PCM + b"\1", kind=kind)),
    )
    with wave.open(io.BytesIO(result.audio.data)) as read:
        assert (read.getframerate(), read.getnchannels()) == (rate, channels)
        assert read.readframes(99) == PCM + PCM


def test_samples_are_given_as_they_are():
    """Raw samples have no head, and their length is told all the same."""
    result, _ = once(
        GeminiSpeech(), SpeechRequest(model="m", text="Hello.", format="pcm"), answer(spoken(PCM * 6000))
    )
    assert result.audio == Medium(data=PCM * 6000, type="audio/pcm")
    assert result.duration_s == 1.0
    assert result.notes == ()


def test_a_voice_that_ends_early_is_told():
    """What the model could not finish is given with a word about it."""
    result, _ = once(
        GeminiSpeech(), SpeechRequest(model="m", text="Hello."), answer(spoken(), reason="MAX_TOKENS")
    )
    assert "ends early" in result.notes[0]


@pytest.mark.parametrize(
    ("parts", "reason", "kind"),
    [
        ([spoken(kind="audio/mpeg")], "STOP", BadProviderResponse),
        ([spoken(kind="audio/L16;rate=0")], "STOP", BadProviderResponse),
        ([spoken(kind="audio/L16;rate=fast")], "STOP", BadProviderResponse),
        ([spoken(kind="audio/L16;rate=99999999999")], "STOP", BadProviderResponse),
        ([spoken(data=b"\1")], "STOP", BadProviderResponse),
        ([spoken(), spoken(kind="audio/L16;rate=16000")], "STOP", BadProviderResponse),
        ([{"text": "Hello."}], "STOP", BadProviderResponse),
        ([spoken()], "SAFETY", ContentFiltered),
    ],
)
def test_what_is_no_voice_is_refused(parts, reason, kind):
    """Other media, absurd rates and half a voice are no voice."""
    with pytest.raises(kind):
        once(GeminiSpeech(), SpeechRequest(model="m", text="Hello."), answer(*parts, reason=reason))


def test_two_speakers_have_a_voice_each():
    """Two speakers are named with their voices, written as in the catalog; the usual voice is left out."""
    request = SpeechRequest(
        model="m",
        text="Ann: Hi.\nBob: Hello.",
        voice="Kore",
        speakers=(Speaker(name="Ann", voice="kore"), Speaker(name="Bob", voice="Puck")),
        instructions="Cheerfully",
        language="en-US",
    )
    _, body = once(GeminiSpeech(), request, answer(spoken()), target_of(voices=("Kore", "Puck")))
    assert body["contents"][0]["parts"] == [{"text": "Cheerfully:\nAnn: Hi.\nBob: Hello."}]
    assert body["generationConfig"]["speechConfig"] == {
        "languageCode": "en-US",
        "multiSpeakerVoiceConfig": {
            "speakerVoiceConfigs": [
                {"speaker": "Ann", "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Kore"}}},
                {"speaker": "Bob", "voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}}},
            ]
        },
    }


def test_a_single_speaker_is_a_plain_voice():
    """The form for several speakers wants two, so one alone is sent as a voice."""
    request = SpeechRequest(
        model="m", text="Hi.", voice="Kore", speakers=(Speaker(name="Ann", voice="Puck"),)
    )
    _, body = once(GeminiSpeech(), request, answer(spoken()))
    voice = {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": "Puck"}}}
    assert body["generationConfig"]["speechConfig"] == voice


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"format": "mp3"}, "response_format"),
        ({"speed": 1.5}, "speed"),
        ({"emotion": "happy"}, "emotion"),
        ({"sample_rate": 24000}, "sample_rate"),
        ({"speakers": tuple(Speaker(name=name, voice="Kore") for name in "abc")}, "speakers"),
        ({"speakers": (Speaker(name="a", voice="Nobody"),)}, "speakers"),
    ],
)
def test_what_voices_cannot_do_is_refused(changes, param):
    """Formats that would have to be made, and wishes without a field, are refused before anything is sent."""
    request = SpeechRequest(model="m", text="Hello.", **changes)
    with pytest.raises(InvalidRequest) as refused:
        next(GeminiSpeech().run(request, target_of(voices=("Kore",)), FACTS))
    assert refused.value.param == param


@parametrize("recording", WRITTEN)
def test_a_recorded_transcript_is_read(recording: Recording):
    """The request is like the recorded one but for the words of the question, and the counts tell the audio."""
    (interaction,) = recording.interactions
    said = recorded_request(interaction)["body"]
    audio = base64.b64decode(said["contents"][0]["parts"][1]["inline_data"]["data"])
    result, body = once(
        GeminiTranscription(),
        TranscriptionRequest(model="m", audio=Medium(data=audio, type="audio/wav"), language="en"),
        recorded_reply(interaction),
    )
    question, part = body["contents"][0]["parts"]
    assert "The language of the recording is en." in question["text"]
    assert part["inlineData"]["mimeType"] == "audio/wav"
    assert base64.b64decode(part["inlineData"]["data"]) == audio
    assert body["generationConfig"] == said["generationConfig"]
    assert result.text == "Ruby is a programming language designed for developer happiness."
    assert result.segments == ()
    assert result.usage.audio_input_tokens == 119


def test_a_transcript_in_segments():
    """Times are asked for as JSON, and come with every sentence; one that runs backwards lasts no time."""
    request = TranscriptionRequest(
        model="m", audio=MP3, prompt="Names: Pip, Axl.", temperature=0.2, timestamps=("segment",)
    )
    stretches = [
        {"start": 0, "end": 1.5, "text": " Hello. "},
        {"start": 2.5, "end": 2, "text": "Bye."},
    ]
    result, body = once(GeminiTranscription(), request, answer({"text": json.dumps(stretches)}))
    assert result.segments == (
        Segment(start_s=0, end_s=1.5, text="Hello."),
        Segment(start_s=2.5, end_s=2.5, text="Bye."),
    )
    assert result.text == "Hello. Bye."
    settings = body["generationConfig"]
    assert settings["responseMimeType"] == "application/json"
    assert settings["temperature"] == 0.2
    assert settings["responseSchema"]["items"]["required"] == ["start", "end", "text"]
    assert "Names: Pip, Axl." in body["contents"][0]["parts"][0]["text"]


@pytest.mark.parametrize(
    "text", ["Hello.", '[{"start": 0, "end": 1}]', '[{"start": 0, "end": 1, "text": "He', "null", '{"a": 1}']
)
def test_segments_that_are_none_are_refused(text):
    """Words, other JSON and JSON that was cut off are no segments."""
    request = TranscriptionRequest(model="m", audio=MP3, timestamps=("segment",))
    with pytest.raises(BadProviderResponse, match="no transcript in segments"):
        once(GeminiTranscription(), request, answer({"text": text}))


def test_a_transcript_that_ends_early_is_told():
    """What the model could not finish is given with a word about it."""
    result, _ = once(
        GeminiTranscription(),
        TranscriptionRequest(model="m", audio=MP3),
        answer({"text": "Hello"}, {"text": " there"}, reason="MAX_TOKENS"),
    )
    assert result.text == "Hello there"
    assert "ends early" in result.notes[0]


def test_times_of_words_are_refused():
    """The model gives no times of single words."""
    request = TranscriptionRequest(model="m", audio=MP3, timestamps=("segment", "word"))
    with pytest.raises(InvalidRequest) as refused:
        next(GeminiTranscription().run(request, target_of(), FACTS))
    assert refused.value.param == "timestamp_granularities"


LONG_REQUEST = TranscriptionRequest(model="m", audio=LONG)
UPLOAD_URL = f"{ORIGIN}/upload/v1beta/files?upload_id=u1&upload_protocol=resumable"
STARTED = make_reply(b"", x_goog_upload_url=UPLOAD_URL)


def file_of(state: str, **fields: Any) -> dict[str, Any]:
    """Return what the vendor says of a file."""
    return {"name": "files/f1", "uri": f"{BASE}/files/f1", "state": state, **fields}


@parametrize("recording", FILES)
def test_a_long_recording_is_uploaded_as_recorded(recording: Recording):
    """The steps, addresses and headers of an upload are those of the recorded one."""
    start, upload, ask = recording.interactions
    replies = [
        *(recorded_reply(each) for each in (start, upload)),
        answer({"text": "Hello."}),
        make_reply({}),
    ]
    result, asked = drive(
        GeminiTranscription().run(LONG_REQUEST, target_of("gemini-2.5-flash"), FACTS), replies
    )
    assert result.text == "Hello."
    for each, interaction in zip(asked, recording.interactions, strict=False):
        said = recorded_request(interaction)
        assert (each.request.method, each.request.url) == (said["method"], said["url"])
        headers = {name: value for name, value in said["headers"].items() if name.startswith("x-goog")}
        assert headers.items() <= dict(each.request.headers).items()
    assert json.loads(asked[0].request.body).keys() == recorded_request(start)["body"].keys()
    assert asked[0].request.headers["x-goog-upload-header-content-length"] == str(len(LONG.data))
    assert asked[0].request.headers["x-goog-upload-header-content-type"] == "audio/mpeg"
    assert asked[1].request.body == LONG.data
    part = json.loads(asked[2].request.body)["contents"][0]["parts"][1]
    uri = recorded_request(ask)["body"]["contents"][0]["parts"][1]["file_data"]["file_uri"]
    assert part == {"fileData": {"mimeType": "audio/mpeg", "fileUri": uri}}
    name = upload.json["file"]["name"]
    assert (asked[3].request.method, asked[3].request.url) == ("DELETE", f"{BASE}/{name}")
    assert [each.is_paid for each in asked] == [False, False, True, False]


def test_a_file_is_waited_for():
    """A file that is still being read in is looked at until it is ready."""
    replies = [
        STARTED,
        make_reply({"file": file_of("PROCESSING")}),
        make_reply(file_of("PROCESSING")),
        make_reply(file_of("ACTIVE")),
        answer({"text": "Hello."}),
        make_reply(PAGE, 500),
    ]
    result, asked = drive(GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS), replies)
    assert result.text == "Hello."
    assert [type(each) for each in asked[2:6]] == [Wait, Send, Wait, Send]
    assert asked[3].request.url == f"{BASE}/files/f1"


def test_a_file_that_stays_is_no_failure():
    """Where deleting a file fails, the transcript is given all the same."""
    gone = ProviderUnavailable("away", provider="gemini")
    replies = [STARTED, make_reply({"file": file_of("ACTIVE")}), answer({"text": "Hello."}), gone]
    result, _ = drive(GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS), replies)
    assert result.text == "Hello."


def test_a_file_is_deleted_where_the_model_fails():
    """A failure of the model is raised after the file was deleted."""
    replies = [
        STARTED,
        make_reply({"file": file_of("ACTIVE")}),
        make_reply({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Slow."}}, 429),
        make_reply({}),
    ]
    exchanges = GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS)
    with pytest.raises(ProviderRateLimited) as raised:
        drive(exchanges, replies)
    assert raised.value.status == 429


def test_a_file_that_is_broken_is_refused():
    """A recording that the vendor cannot read is the caller's affair, and costs nothing."""
    error = {"code": 3, "message": "Bad audio."}
    replies = [STARTED, make_reply({"file": file_of("FAILED", error=error)}), make_reply({})]
    with pytest.raises(ProviderRejected, match=r"Bad audio\.") as raised:
        drive(GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS), replies)
    assert raised.value.is_unbilled


def test_a_file_is_not_waited_for_without_end():
    """A file that is never ready is given up, and deleted."""
    busy = [make_reply(file_of("PROCESSING"))] * 90
    replies = [STARTED, make_reply({"file": file_of("PROCESSING")}), *busy, make_reply({})]
    with pytest.raises(ProviderTimeout, match="within 180 s"):
        drive(GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS), replies)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://evil.test/upload/v1beta/files?upload_id=u1",
        "http://generativelanguage.googleapis.com/upload",
        "https://generativelanguage.googleapis.com:8443/upload",
        "https://generativelanguage.googleapis.com.evil.test/upload",
        "https://generativelanguage.googleapis.com@evil.test/upload",
        "https://[broken/upload",
        "/upload/v1beta/files",
    ],
)
def test_nothing_is_uploaded_elsewhere(url):
    """An address at another place than the deployment's is refused: the credential would go there."""
    with pytest.raises(BadProviderResponse, match="address for an upload"):
        drive(
            GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS),
            [make_reply(b"", x_goog_upload_url=url)],
        )
    assert own_address(url, target_of()) is None


def test_an_address_is_rebuilt_on_the_own_place():
    """Of an address only path and query are taken, and the usual port is the same place."""
    found = own_address("https://x@GENERATIVELANGUAGE.googleapis.com:443/a/b?c=d#e", target_of())
    assert found == f"{ORIGIN}/a/b?c=d"


def test_an_upload_goes_through_a_gateway():
    """A base address with a path of its own keeps it."""
    sent = next(
        GeminiTranscription().run(LONG_REQUEST, target_of(base_url="https://in.test/g/v1beta"), FACTS)
    )
    assert sent.request.url == "https://in.test/g/upload/v1beta/files"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        PAGE,
        b"null",
        {},
        {"file": {"name": "files/f1"}},
        {"file": file_of("ACTIVE", name="../models")},
        {"file": file_of("ACTIVE", uri="")},
    ],
)
def test_an_upload_without_a_file_is_refused(body):
    """What is said of an upload is checked before it is trusted."""
    with pytest.raises(BadProviderResponse, match="is no file"):
        drive(GeminiTranscription().run(LONG_REQUEST, target_of(), FACTS), [STARTED, make_reply(body)])


@parametrize("recording", FILMS)
def test_a_recorded_film_is_made(recording: Recording):
    """Request, looks and answers are those of the recorded job; the film is fetched with the credential."""
    create, *looks = recording.interactions
    said = recorded_request(create)
    model = model_of(create)
    target = target_of(model)
    request = VideoRequest(model=model, prompt=said["body"]["instances"][0]["prompt"], duration_s=4)
    ticket, (sent,) = drive(GeminiVideos().submit(request, target, FACTS), [recorded_reply(create)])
    assert sent.is_paid
    assert (sent.request.method, sent.request.url) == (said["method"], said["url"])
    assert json.loads(sent.request.body) == said["body"]
    assert ticket.id == create.json["name"]
    views = []
    for interaction in looks:
        asked = recorded_request(interaction)
        if ":download" in asked["url"]:
            break
        view, (sent,) = drive(GeminiVideos().look(ticket, target, FACTS), [recorded_reply(interaction)])
        assert (sent.request.method, sent.request.url) == ("GET", asked["url"])
        views.append(view)
    assert [view.status for view in views] == ["running"] * (len(views) - 1) + ["succeeded"]
    film, (sent,) = drive(GeminiVideos().collect(ticket, views[-1], target, FACTS), [make_reply(FILM)])
    assert film == Medium(data=FILM, type="video/mp4")
    assert (sent.request.method, sent.request.url) == ("GET", views[-1].data["uri"])
    assert sent.reads_failures


def test_a_film_request_says_all():
    """Every field has its name, fields of the catalog and a caller's own stand beside, and never win."""
    request = VideoRequest(
        model="m",
        prompt="Waves.",
        image=PNG,
        duration_s=8,
        resolution="1080p",
        aspect_ratio="9:16",
        negative_prompt="boats",
        seed=3,
        extra={"personGeneration": "allow_adult", "seed": 9, "lastFrame": {"a": 1}, "video": {"b": 2}},
    )
    target = target_of(fields={"compressionQuality": "optimized"})
    _, (sent,) = drive(GeminiVideos().submit(request, target, FACTS), [make_reply({"name": OPERATION})])
    picture = {"bytesBase64Encoded": base64.b64encode(PNG.data).decode(), "mimeType": "image/png"}
    assert json.loads(sent.request.body) == {
        "instances": [{"prompt": "Waves.", "image": picture, "lastFrame": {"a": 1}, "video": {"b": 2}}],
        "parameters": {
            "aspectRatio": "9:16",
            "resolution": "1080p",
            "durationSeconds": 8,
            "negativePrompt": "boats",
            "seed": 3,
            "personGeneration": "allow_adult",
            "compressionQuality": "optimized",
        },
    }


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"n": 2}, "n"),
        ({"audio": MP3}, "audio"),
        ({"width": 1280, "height": 720}, "size"),
        ({"steps": 5}, "steps"),
        ({"guidance_scale": 5.0}, "guidance_scale"),
        ({"image": Link(url="https://a.test/b")}, "image"),
    ],
)
def test_what_films_cannot_do_is_refused(changes, param):
    """A wish without a field is refused before anything is sent."""
    with pytest.raises(InvalidRequest) as refused:
        next(GeminiVideos().submit(VideoRequest(model="m", prompt="Waves.", **changes), target_of(), FACTS))
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", BadProviderResponse),
        (PAGE, BadProviderResponse),
        (b"null", BadProviderResponse),
        ({}, BadProviderResponse),
        ({"name": 3}, BadProviderResponse),
        ({"name": "models/m/../../x"}, BadProviderResponse),
        ({"name": "https://evil.test/x"}, BadProviderResponse),
        ({"name": "models/m/operations/a?b"}, BadProviderResponse),
        ({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}, ProviderRateLimited),
    ],
)
def test_what_is_no_job_is_refused(body, kind):
    """A job has a name that leads nowhere else."""
    with pytest.raises(kind):
        drive(
            GeminiVideos().submit(VideoRequest(model="m", prompt="Waves."), target_of(), FACTS),
            [make_reply(body)],
        )


def done(**response: Any) -> dict[str, Any]:
    """Return an operation that has ended with a response."""
    return {"name": OPERATION, "done": True, "response": {"generateVideoResponse": response}}


def failed(code: int, message: str) -> dict[str, Any]:
    """Return an operation that has ended with an error."""
    return {"name": OPERATION, "done": True, "error": {"code": code, "message": message}}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (failed(3, "Your image violates Gemini API's usage guidelines."), ContentFiltered),
        (failed(3, "durationSeconds is out of bound."), ProviderRejected),
        (failed(4, "Late."), ProviderTimeout),
        (failed(8, "Too much."), ProviderRateLimited),
        (failed(13, "Internal."), ProviderUnavailable),
        (failed(14, "Away."), ProviderUnavailable),
        (failed(16, "Who?"), ProviderAuthFailed),
        (failed(99, "?"), ProviderUnavailable),
        (done(raiMediaFilteredCount=1, raiMediaFilteredReasons=["It shows a face."]), ContentFiltered),
        (done(raiMediaFilteredCount=1), ContentFiltered),
        (done(), BadProviderResponse),
        (done(generatedSamples=[{"video": {}}]), BadProviderResponse),
    ],
)
def test_a_film_that_was_not_made_costs_nothing(body, kind):
    """Why there is no film is told by class, and none of it is billed."""
    view, _ = drive(GeminiVideos().look(TICKET, target_of(), FACTS), [make_reply(body)])
    assert view.status == "failed"
    assert type(view.error) is kind
    assert view.error.is_unbilled


@pytest.mark.parametrize("response", [{}, {"videos": [{"uri": "x"}]}, {"generateVideoResponse": 3}, None])
def test_an_end_in_another_form_is_no_film(response):
    """An answer that cannot be read fails the job, but may have been billed."""
    body = {"name": OPERATION, "done": True, "response": response}
    view, _ = drive(GeminiVideos().look(TICKET, target_of(), FACTS), [make_reply(body)])
    assert view.status == "failed"
    assert isinstance(view.error, BadProviderResponse)
    assert not view.error.is_unbilled


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", BadProviderResponse),
        (PAGE, BadProviderResponse),
        ({}, BadProviderResponse),
        ({"done": "yes"}, BadProviderResponse),
        ({"error": {"code": 503, "message": "Away."}}, ProviderUnavailable),
    ],
)
def test_a_look_that_tells_nothing_is_an_error(body, kind):
    """What is wrong with a look is raised, and says nothing about the job."""
    with pytest.raises(kind) as raised:
        drive(GeminiVideos().look(TICKET, target_of(), FACTS), [make_reply(body)])
    assert not raised.value.is_unbilled


def test_a_ticket_cannot_lead_elsewhere():
    """A ticket that is no operation is not asked for."""
    with pytest.raises(BadProviderResponse):
        next(GeminiVideos().look(Ticket(id="../x"), target_of(), FACTS))


def test_a_redirect_is_followed_without_the_credential():
    """Where the film lies elsewhere, it is fetched from there as by anybody."""
    moved = make_reply(b"", 302, location="https://storage.test/film.mp4?sig=1")
    film, asked = drive(
        GeminiVideos().collect(TICKET, VIEW, target_of(), FACTS),
        [moved, make_reply(FILM, content_type="x/y")],
    )
    assert film.type == "video/mp4"
    assert asked[1] == Fetch(url="https://storage.test/film.mp4?sig=1")


def test_a_redirect_may_be_relative():
    """An address without an origin lies beside the one that named it."""
    moved = make_reply(b"", 307, location="/films/1")
    _, asked = drive(GeminiVideos().collect(TICKET, VIEW, target_of(), FACTS), [moved, make_reply(FILM)])
    assert asked[1] == Fetch(url=f"{ORIGIN}/films/1")


@pytest.mark.parametrize(
    "headers", [{}, {"location": ""}, {"location": "https://[x"}, {"location": "ftp://a.test"}]
)
def test_a_redirect_to_nowhere_is_an_error(headers):
    """A redirect without an address is not followed."""
    exchanges = GeminiVideos().collect(TICKET, VIEW, target_of(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse, match="no address"):
        exchanges.send(make_reply(b"", 302, **headers))


def test_a_film_elsewhere_is_fetched_without_the_credential():
    """An address at another place is never given the credential."""
    view = JobView(status="succeeded", data={"uri": "https://storage.test/film.mp4"})
    film, asked = drive(
        GeminiVideos().collect(TICKET, view, target_of(), FACTS),
        [make_reply(b"????film", content_type="video/webm")],
    )
    assert film == Medium(data=b"????film", type="video/webm")
    assert asked == [Fetch(url="https://storage.test/film.mp4")]


@pytest.mark.parametrize("uri", ["", "files/f1", "ftp://storage.test/film", "https://[x"])
def test_a_film_without_an_address_is_an_error(uri):
    """What is no address is not fetched."""
    with pytest.raises(BadProviderResponse, match="no address"):
        next(
            GeminiVideos().collect(TICKET, JobView(status="succeeded", data={"uri": uri}), target_of(), FACTS)
        )


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (make_reply(b""), BadProviderResponse),
        (make_reply(PAGE, content_type="text/html"), BadProviderResponse),
        (make_reply(PAGE, content_type="video/mp4"), BadProviderResponse),
        (make_reply(PNG.data, content_type="video/mp4"), BadProviderResponse),
        (make_reply(b"????", content_type="application/octet-stream"), BadProviderResponse),
        (make_reply({"error": {"code": 404, "message": "Gone."}}, 404), ProviderModelGone),
        (make_reply({"error": {"code": 503, "message": "Away."}}), ProviderUnavailable),
    ],
)
def test_what_is_no_film_is_refused(reply, kind):
    """Nothing, pages, pictures and errors are no film."""
    with pytest.raises(kind):
        drive(GeminiVideos().collect(TICKET, VIEW, target_of(), FACTS), [reply])


def test_films_cannot_be_called_off():
    """The vendor offers no way to stop a film that is being made."""
    assert GeminiVideos().cancel(TICKET, target_of(), FACTS) is None
