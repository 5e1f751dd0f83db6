"""Speech and transcripts in the OpenAI wire format: what goes out, what comes back, and what callers may send."""

import base64
import json
from email import message_from_bytes

import pytest

from llm_gate.dialects.openai import address
from llm_gate.dialects.openai_speech import OpenAISpeech, decode_speech_request
from llm_gate.dialects.openai_transcriptions import (
    OpenAITranscriptions,
    decode_transcription,
    encode_transcription,
)
from llm_gate.domain.catalog import MediaSpec
from llm_gate.domain.errors import BadProviderResponse, InvalidRequest, ProviderError, ProviderRateLimited
from llm_gate.domain.media import (
    Medium,
    Segment,
    Speaker,
    SpeechRequest,
    TranscriptionRequest,
    TranscriptionResult,
)
from llm_gate.domain.provider import Facts
from llm_gate.domain.usage import Usage
from support.recorded import parametrize, recordings
from support.targets import make_reply, make_target

FACTS = Facts(now_s=0.0, token="0f" * 16)
MP3 = b"\xff\xf3\x84\xc4" + b"\x00" * 60
WAV = Medium(data=b"RIFF\x24\x00\x00\x00WAVEfmt ", type="audio/wav", name="talk.wav")
SPOKEN = SpeechRequest(model="m", text="Hello.", voice="alloy")
TOLD = TranscriptionRequest(model="m", audio=WAV)
BROKEN = [
    pytest.param(b"", {}, id="empty"),
    pytest.param(b"null", {"content_type": "application/json"}, id="null"),
    pytest.param(b"[]", {"content_type": "application/json"}, id="list"),
    pytest.param(b'"text"', {}, id="text"),
    pytest.param(b"{}", {"content_type": "audio/mpeg"}, id="object under a false type"),
    pytest.param(b"<!DOCTYPE html><p>Busy", {"content_type": "text/html"}, id="page"),
    pytest.param(b"\n<html>Busy</html>", {"content_type": "audio/mpeg"}, id="page under a false type"),
    pytest.param(b'{"text": 5, "audio_data": 5}', {"content_type": "application/json"}, id="wrong types"),
    pytest.param(b'{"audio_data": ""}', {"content_type": "application/json"}, id="empty inside"),
    pytest.param(b'{"audio_data": "?"}', {"content_type": "application/json"}, id="no base64"),
    pytest.param(b'{"te', {"content_type": "application/json"}, id="cut"),
]


def drive(codec, request, reply=None, **target):
    """Run a codec against one reply and return what it sent and what came of it."""
    exchanges = codec(address).run(request, make_target(**target), FACTS)
    sent = next(exchanges)
    if reply is None:
        return sent, None
    with pytest.raises(StopIteration) as end:
        exchanges.send(reply)
    return sent, end.value.value


def spoken(request, reply=None, **target):
    """Have a text read out."""
    return drive(OpenAISpeech, request, reply or make_reply(MP3, content_type="audio/mpeg"), **target)


def written(request, reply=None, **target):
    """Have a recording written down."""
    return drive(OpenAITranscriptions, request, reply or make_reply({"text": "Hello."}), **target)


def form_of(request):
    """Return a form's fields as pairs of name and text, and its file as name, type and bytes."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    pairs, file = [], None
    for part in message_from_bytes(head + request.body).get_payload():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        if part.get_filename() is None:
            pairs.append((name, data.decode()))
        else:
            file = (part.get_filename(), part.get_content_type(), data)
    return pairs, file


def test_speech_is_asked_for():
    """Every wish stands under its name in the body, at the address of the operation, and is paid once."""
    request = SpeechRequest(
        model="m", text="Hello.", voice="alloy", format="wav", speed=1.5, instructions="Calmly.", user="u"
    )
    sent, _ = spoken(request)
    assert sent.is_paid
    assert (sent.request.method, sent.request.url) == ("POST", "https://vendor.test/v1/audio/speech")
    assert json.loads(sent.request.body) == {
        "model": "model-a",
        "input": "Hello.",
        "voice": "alloy",
        "response_format": "wav",
        "speed": 1.5,
        "instructions": "Calmly.",
    }


@parametrize("recording", recordings("openai", "speech") + recordings("mistral", "speech"))
def test_recorded_speech_is_asked_for_and_read(recording):
    """The recorded request is written as it was, and the recorded answer is a recording."""
    item = recording.interactions[0]
    body = item.request["body"]
    request = decode_speech_request(json.dumps(body).encode())
    reply = make_reply(item.body, content_type=item.headers["content-type"])
    sent, result = spoken(request, reply, model=body["model"])
    assert json.loads(sent.request.body) == body
    assert result.audio.type == ("audio/pcm" if "pcm" in recording.id else "audio/mpeg")
    assert result.audio.data == (base64.b64decode(item.json["audio_data"]) if item.json else item.body)
    assert result.usage is None


def test_fields_of_the_catalog_and_the_caller_go_out():
    """A caller's own fields go out, the catalog's win over them, and what is asked for wins over both."""
    spec = MediaSpec(fields={"response_format": "wav", "mode": "best"})
    request = SpeechRequest(
        model="m", text="Hello.", voice="alloy", extra={"mode": "fast", "pace": 2, "voice": "x"}
    )
    sent, result = spoken(request, make_reply(b"\x00\x01" * 9), media=spec)
    assert json.loads(sent.request.body) == {
        "model": "model-a",
        "input": "Hello.",
        "voice": "alloy",
        "response_format": "wav",
        "mode": "best",
        "pace": 2,
    }
    assert result.audio.type == "audio/wav"


@pytest.mark.parametrize(
    ("asked", "type_"),
    [
        ("mp3", "audio/mpeg"),
        ("opus", "audio/ogg"),
        ("aac", "audio/aac"),
        ("flac", "audio/flac"),
        ("WAV", "audio/wav"),
        ("pcm", "audio/pcm"),
        (None, "audio/mpeg"),
        ("mulaw", "audio/mpeg"),
    ],
)
def test_a_type_is_found_where_the_vendor_names_none(asked, type_):
    """The asked format says what the bytes are where the vendor only says that they are bytes."""
    request = SpeechRequest(model="m", text="Hello.", voice="alloy", format=asked)
    _, result = spoken(request, make_reply(b"\x01\x02\x03\x04", content_type="application/octet-stream"))
    assert result.audio.type == type_


def test_the_vendors_type_wins():
    """What the vendor says of its bytes wins over what was asked for, without parameters."""
    request = SpeechRequest(model="m", text="Hello.", voice="alloy", format="opus")
    _, result = spoken(request, make_reply(b"OggS\x00", content_type="Audio/Opus; codecs=opus"))
    assert result.audio.type == "audio/opus"


def test_samples_that_begin_like_json_are_samples():
    """Raw samples may begin with a brace."""
    reply = make_reply(b"{\x00[\x01" * 5, content_type="audio/pcm")
    assert spoken(SPOKEN, reply)[1].audio.data == reply.body


@pytest.mark.parametrize(("body", "headers"), BROKEN)
def test_what_is_no_voice_is_refused(body, headers):
    """An answer that is empty, a page or JSON is no recording, whatever its headers say."""
    exchanges = OpenAISpeech(address).run(SPOKEN, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse, match="holds no voice"):
        exchanges.send(make_reply(body, **headers))


@pytest.mark.parametrize(("codec", "request_"), [(OpenAISpeech, SPOKEN), (OpenAITranscriptions, TOLD)])
def test_an_error_inside_a_success_is_raised(codec, request_):
    """An error object in an answer with status 200 is the error that it names."""
    exchanges = codec(address).run(request_, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(ProviderRateLimited):
        exchanges.send(make_reply({"error": {"message": "slow down", "code": "rate_limit_exceeded"}}))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("speakers", (Speaker(name="A", voice="x"),)),
        ("pitch", 2),
        ("volume", 0.5),
        ("emotion", "joy"),
        ("language", "de"),
        ("sample_rate", 16000),
        ("n", 2),
    ],
)
def test_wishes_without_a_word_are_refused(name, value):
    """What the format cannot say is refused before anything is sent."""
    request = SpeechRequest(model="m", text="Hello.", **{name: value})
    with pytest.raises(InvalidRequest) as refused:
        next(OpenAISpeech(address).run(request, make_target(), FACTS))
    assert refused.value.param == name


def test_wishes_that_the_catalog_knows_go_out():
    """A model whose entry takes a further wish is told it under its own name."""
    request = SpeechRequest(model="m", text="Hello.", language="de")
    sent, _ = spoken(request, media=MediaSpec(takes=("language",)))
    assert json.loads(sent.request.body) == {"model": "model-a", "input": "Hello.", "language": "de"}


def test_a_voice_of_ones_own_goes_out_as_an_object():
    """A caller's own voice is read from an object and written as one."""
    request = decode_speech_request(b'{"model": "m", "input": "Hi", "voice": {"id": "voice_12"}}')
    assert request.voice == "voice_12"
    assert json.loads(spoken(request)[0].request.body)["voice"] == {"id": "voice_12"}


def test_a_speech_request_is_read():
    """Every field of the format is read, and those of vendors are handed on."""
    body = {
        "model": "m",
        "input": "Hello.",
        "voice": "alloy",
        "response_format": "flac",
        "speed": 4,
        "instructions": "Calmly.",
        "stream_format": "audio",
        "user": "u",
        "lexicon": ["a"],
        "nothing": None,
    }
    assert decode_speech_request(json.dumps(body).encode()) == SpeechRequest(
        model="m",
        text="Hello.",
        voice="alloy",
        format="flac",
        speed=4.0,
        instructions="Calmly.",
        is_streamed=True,
        user="u",
        extra={"lexicon": ["a"]},
    )
    assert not decode_speech_request(b'{"model": "m", "input": "Hello."}').is_streamed


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": ""}, "model"),
        ({"model": None}, "model"),
        ({"input": ""}, "input"),
        ({"input": ["a"]}, "input"),
        ({"speed": 0.2}, "speed"),
        ({"speed": 4.1}, "speed"),
        ({"speed": "fast"}, "speed"),
        ({"voice": 5}, "voice"),
        ({"voice": {}}, "voice.id"),
        ({"response_format": ""}, "response_format"),
        ({"stream_format": "sse"}, "stream_format"),
        ({"stream_format": "chunks"}, "stream_format"),
    ],
)
def test_a_bad_speech_request_is_refused(changes, param):
    """What is wrong in a request is named."""
    body = {"model": "m", "input": "Hello.", **changes}
    with pytest.raises(InvalidRequest) as refused:
        decode_speech_request(json.dumps(body).encode())
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{", b"\xff", b'{"model": "m", "model": "n"}'])
def test_a_body_that_is_no_object_is_refused(body):
    """A speech request is one JSON object."""
    with pytest.raises(InvalidRequest):
        decode_speech_request(body)


def test_a_transcript_is_asked_for():
    """Every wish is a field of the form; lists have one field for each item, with brackets."""
    request = TranscriptionRequest(
        model="m",
        audio=WAV,
        language="de",
        prompt="Names: Ada",
        temperature=0.0,
        timestamps=("segment", "word"),
        user="u",
        extra={"keywords": ["a", "b"], "diarize": True, "model": "x", "chunking_strategy": "auto"},
    )
    sent, _ = written(request)
    fields, file = form_of(sent.request)
    assert sent.is_paid
    assert (sent.request.method, sent.request.url) == ("POST", "https://vendor.test/v1/audio/transcriptions")
    assert sorted(fields) == [
        ("chunking_strategy", "auto"),
        ("diarize", "true"),
        ("keywords[]", "a"),
        ("keywords[]", "b"),
        ("language", "de"),
        ("model", "model-a"),
        ("prompt", "Names: Ada"),
        ("response_format", "verbose_json"),
        ("temperature", "0.0"),
        ("timestamp_granularities[]", "segment"),
        ("timestamp_granularities[]", "word"),
    ]
    assert file == ("talk.wav", "audio/wav", WAV.data)


@pytest.mark.parametrize(
    ("fixed", "timestamps", "expected"),
    [
        ({}, (), ["json"]),
        ({}, ("word",), ["verbose_json"]),
        ({"response_format": "verbose_json"}, (), ["verbose_json"]),
        ({"response_format": "diarized_json"}, ("segment",), ["diarized_json"]),
        ({"response_format": ""}, (), []),
    ],
)
def test_the_form_of_the_answer_is_chosen(fixed, timestamps, expected):
    """Times need the long form; a model's entry may name another, or none."""
    request = TranscriptionRequest(model="m", audio=WAV, timestamps=timestamps)
    fields, _ = form_of(written(request, media=MediaSpec(fields=fixed))[0].request)
    assert [text for name, text in fields if name == "response_format"] == expected


@pytest.mark.parametrize(
    ("audio", "name", "type_"),
    [
        (Medium(data=b"ID3", type="audio/mpeg"), "file.mp3", "audio/mpeg"),
        (Medium(data=b"fLaC", type="application/octet-stream"), "file.flac", "audio/flac"),
        (Medium(data=b"OggS", type="audio/ogg", name="talk"), "talk.ogg", "audio/ogg"),
        (Medium(data=b"??", type="audio/webm", name="a.b.webm"), "a.b.webm", "audio/webm"),
    ],
)
def test_a_recording_goes_out_under_a_telling_name(audio, name, type_):
    """The name of the file says what it is, also where the caller named none."""
    _, file = form_of(written(TranscriptionRequest(model="m", audio=audio))[0].request)
    assert file == (name, type_, audio.data)


def test_several_transcripts_are_refused():
    """One recording is written down once."""
    with pytest.raises(InvalidRequest):
        written(TranscriptionRequest(model="m", audio=WAV, n=2))


RUBY = "Ruby is a programming language designed for developer happiness."
READ = {
    "openai/transcription/diarize.json": (
        RUBY,
        3.7,
        Usage(input_tokens=37, audio_input_tokens=37, output_tokens=144),
        (Segment(start_s=0.0, end_s=3.1499999999999995, text=f" {RUBY}", speaker="A"),),
        0,
    ),
    "openai/transcription/gpt-4o-transcribe-token-usage.json": (
        "あたし",
        None,
        Usage(input_tokens=1, audio_input_tokens=1, output_tokens=5),
        (),
        0,
    ),
    "openai/transcription/whisper-1.json": (RUBY, 4.0, None, (), 0),
    "mistral/transcription/voxtral.json": (
        RUBY,
        3.0,
        Usage(input_tokens=378, audio_input_tokens=375, output_tokens=11),
        (),
        0,
    ),
    "xai/transcription/stt.json": (RUBY, 3.7, None, (), 9),
}


@parametrize(
    "recording",
    [
        recording
        for vendor in ("openai", "mistral", "xai")
        for recording in recordings(vendor, "transcription")
        if recording.id in READ
    ],
)
def test_recorded_transcripts_are_read(recording):
    """Text, length, counts, segments and words of recorded answers are read, also those of compatible vendors."""
    item = recording.interactions[0]
    _, result = written(TOLD, make_reply(item.body))
    text, lasts_s, usage, segments, words = READ[recording.id]
    assert (result.text, result.duration_s, result.usage, result.segments) == (text, lasts_s, usage, segments)
    assert len(result.words) == words
    if words:
        assert result.words[0] == Segment(start_s=0.121, end_s=0.442, text="Ruby")
        assert result.language == "en"


@parametrize("recording", recordings("openai", "transcription"))
def test_a_recorded_stream_is_no_transcript(recording):
    """Only answers that are one JSON object are read; events are none."""
    item = recording.interactions[0]
    exchanges = OpenAITranscriptions(address).run(TOLD, make_target(), FACTS)
    next(exchanges)
    expected = BadProviderResponse if "stream" in recording.id else StopIteration
    with pytest.raises(expected):
        exchanges.send(make_reply(item.body))


def test_a_long_answer_is_read():
    """Language, a length written as text, segments and words with either name of their text are read."""
    body = {
        "task": "transcribe",
        "language": "english",
        "duration": "8.5",
        "text": "Hello there.",
        "segments": [
            {"id": 0, "seek": 0, "start": 0, "end": 1.5, "text": " Hello", "tokens": [1], "temperature": 0},
            {"id": 1, "start": 3, "end": 2, "text": " backwards"},
            {"id": 2, "start": 1.5, "end": 2, "text": " there.", "speaker": 1},
        ],
        "words": [{"word": "Hello", "start": 0, "end": 0.5}, {"text": "there.", "start": 0.5, "end": 1}],
        "usage": {"type": "duration", "seconds": 9},
    }
    _, result = written(TOLD, make_reply(body))
    assert result == TranscriptionResult(
        text="Hello there.",
        language="english",
        duration_s=8.5,
        segments=(
            Segment(start_s=0.0, end_s=1.5, text=" Hello"),
            Segment(start_s=1.5, end_s=2.0, text=" there.", speaker="1"),
        ),
        words=(Segment(start_s=0.0, end_s=0.5, text="Hello"), Segment(start_s=0.5, end_s=1.0, text="there.")),
    )


def test_silence_has_an_empty_transcript():
    """An empty text is a transcript; a missing one is not."""
    assert written(TOLD, make_reply({"text": ""}))[1].text == ""


@pytest.mark.parametrize(
    "usage",
    [
        None,
        "much",
        {"type": "tokens", "input_tokens": "x"},
        {"type": "tokens", "input_tokens": -1, "output_tokens": 2},
        {"type": "tokens", "input_tokens": 10**12, "output_tokens": 2},
        {"type": "duration", "seconds": -4},
    ],
)
def test_usage_that_cannot_be_is_unknown(usage):
    """Counts and lengths that are malformed or absurd are taken for unknown, and the text is kept."""
    _, result = written(TOLD, make_reply({"text": "Hi", "usage": usage}))
    assert (result.text, result.usage, result.duration_s) == ("Hi", None, None)


@pytest.mark.parametrize(("body", "headers"), BROKEN)
def test_what_is_no_transcript_is_refused(body, headers):
    """An answer without a text is no transcript."""
    exchanges = OpenAITranscriptions(address).run(TOLD, make_target(), FACTS)
    next(exchanges)
    with pytest.raises(BadProviderResponse, match="holds no transcript"):
        exchanges.send(make_reply(body, **headers))


@pytest.mark.parametrize("body", [{"segments": [{}], "text": "a"}, {"text": "a", "duration": "long"}])
def test_a_transcript_of_a_bad_shape_is_refused(body):
    """Segments without times and a length that is no number break the contract."""
    with pytest.raises(ProviderError):
        written(TOLD, make_reply(body))


def test_a_form_is_read():
    """Every field of the form is read; lists may bear brackets, and fields of vendors are handed on."""
    fields = {
        "model": ["m"],
        "language": ["de"],
        "prompt": ["Names: Ada"],
        "temperature": ["0.5"],
        "response_format": ["verbose_json"],
        "timestamp_granularities[]": ["word", "segment", "word"],
        "stream": ["false"],
        "keywords[]": ["a"],
        "chunking_strategy": ["auto"],
        "user": ["u"],
    }
    request, form = decode_transcription(fields, {"file": [WAV]})
    assert form == "verbose_json"
    assert request == TranscriptionRequest(
        model="m",
        audio=WAV,
        language="de",
        prompt="Names: Ada",
        temperature=0.5,
        timestamps=("word", "segment"),
        user="u",
        extra={"keywords": ["a"], "chunking_strategy": "auto"},
    )


@pytest.mark.parametrize(
    ("said", "form"),
    [([], "json"), ([""], "json"), (["text"], "text"), (["srt"], "srt"), (["vtt"], "vtt")],
)
def test_the_wanted_form_is_read(said, form):
    """The short JSON is wanted where nobody says."""
    fields = {"model": ["m"], "response_format": said, "language": [""], "temperature": [""]}
    assert decode_transcription(fields, {"file": [WAV]}) == (TOLD, form)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": []}, "model"),
        ({"model": [""]}, "model"),
        ({"model": ["a", "b"]}, "model"),
        ({"response_format": ["diarized_json"]}, "response_format"),
        ({"response_format": ["xml"]}, "response_format"),
        ({"stream": ["true"]}, "stream"),
        ({"include[]": ["logprobs"]}, "include"),
        ({"temperature": ["1.1"]}, "temperature"),
        ({"temperature": ["-0.1"]}, "temperature"),
        ({"temperature": ["nan"]}, "temperature"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities"),
        ({"timestamp_granularities[]": ["line"], "response_format": ["srt"]}, "timestamp_granularities"),
    ],
)
def test_a_bad_form_is_refused(changes, param):
    """What is wrong in a form, or not offered, is named."""
    with pytest.raises(InvalidRequest) as refused:
        decode_transcription({"model": ["m"], **changes}, {"file": [WAV]})
    assert refused.value.param == param


@pytest.mark.parametrize(
    ("fields", "files", "param"),
    [
        ({}, {}, "file"),
        ({"file": ["bytes as text"]}, {}, "file"),
        ({}, {"file": [WAV, WAV]}, "file"),
        ({}, {"file": [Medium(data=b"", type="audio/wav")]}, "file"),
        ({}, {"file": [WAV], "second": [WAV]}, "second"),
    ],
)
def test_exactly_one_recording_is_taken(fields, files, param):
    """A form without its file, with two of them or with an empty one is refused."""
    with pytest.raises(InvalidRequest) as refused:
        decode_transcription({"model": ["m"], **fields}, files)
    assert refused.value.param == param


RESULT = TranscriptionResult(
    text="Hello & <b> there. It --> goes\non.",
    language="en",
    duration_s=3723.5,
    segments=(
        Segment(start_s=0.0, end_s=1.2345, text=" Hello & <b> there.", speaker="A"),
        Segment(start_s=59.9996, end_s=3723.5, text=" It --> goes\n\non."),
    ),
)
PLAIN = TranscriptionResult(text=" Hello. ", duration_s=3.5)


def test_a_transcript_is_written_as_text():
    """Plain text ends with a line end."""
    assert encode_transcription(PLAIN, "text", cost_usd="1") == (b" Hello. \n", "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            RESULT,
            (
                "1\n00:00:00,000 --> 00:00:01,234\nHello & <b> there.\n\n"
                "2\n00:01:00,000 --> 01:02:03,500\nIt -> goes on.\n\n"
            ),
        ),
        (PLAIN, "1\n00:00:00,000 --> 00:00:03,500\nHello.\n\n"),
        (TranscriptionResult(text=" ", duration_s=3.5), ""),
    ],
)
def test_subtitles_are_written_as_srt(result, text):
    """Numbered subtitles with commas in their times; one over everything where there are no segments."""
    assert encode_transcription(result, "srt", cost_usd=None) == (text.encode(), "text/plain; charset=utf-8")


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (
            RESULT,
            (
                "WEBVTT\n\n00:00:00.000 --> 00:00:01.234\nHello &amp; &lt;b> there.\n\n"
                "00:01:00.000 --> 01:02:03.500\nIt -> goes on.\n\n"
            ),
        ),
        (PLAIN, "WEBVTT\n\n00:00:00.000 --> 00:00:03.500\nHello.\n\n"),
        (TranscriptionResult(text="", duration_s=3.5), "WEBVTT\n\n"),
    ],
)
def test_subtitles_are_written_as_vtt(result, text):
    """Subtitles with points in their times, and nothing in them that would be markup."""
    assert encode_transcription(result, "vtt", cost_usd=None) == (text.encode(), "text/plain; charset=utf-8")


@pytest.mark.parametrize("form", ["srt", "vtt", "verbose_json"])
def test_times_that_nobody_knows_are_refused(form):
    """Without segments and without the recording's length there are no times to write."""
    with pytest.raises(InvalidRequest) as refused:
        encode_transcription(TranscriptionResult(text="Hello."), form, cost_usd=None)
    assert refused.value.param == "response_format"


@pytest.mark.parametrize(
    ("result", "cost", "expected"),
    [
        (TranscriptionResult(text="a"), "0.5", '{"text":"a"}'),
        (
            TranscriptionResult(text="a", duration_s=3.5),
            "0.000123456789",
            '{"text":"a","usage":{"type":"duration","seconds":3.5,"cost":0.000123456789}}',
        ),
        (
            TranscriptionResult(
                text="a",
                duration_s=3.5,
                usage=Usage(input_tokens=10, audio_input_tokens=7, output_tokens=5),
            ),
            None,
            (
                '{"text":"a","usage":{"type":"tokens","input_tokens":10,"input_token_details":'
                '{"text_tokens":3,"audio_tokens":7},"output_tokens":5,"total_tokens":15,"cost":null}}'
            ),
        ),
    ],
)
def test_a_transcript_is_written_as_json(result, cost, expected):
    """The text, and what it took where that is known; the cost is an exact number."""
    assert encode_transcription(result, "json", cost_usd=cost) == (expected.encode(), "application/json")


def test_a_transcript_is_written_at_length():
    """Segments and words have their times, and speakers where they are known."""
    words = (Segment(start_s=0.0, end_s=0.5, text="Hi"),)
    result = TranscriptionResult(text="Hi", segments=RESULT.segments, words=words)
    body, kind = encode_transcription(result, "verbose_json", cost_usd=None)
    assert kind == "application/json"
    assert json.loads(body) == {
        "task": "transcribe",
        "language": "",
        "duration": 3723.5,
        "text": "Hi",
        "segments": [
            {"id": 0, "start": 0.0, "end": 1.2345, "text": " Hello & <b> there.", "speaker": "A"},
            {"id": 1, "start": 59.9996, "end": 3723.5, "text": " It --> goes\n\non."},
        ],
        "words": [{"word": "Hi", "start": 0.0, "end": 0.5}],
    }


def test_a_transcript_without_segments_has_one_at_length():
    """One segment spans the whole recording, and the cost stands beside its length."""
    body, _ = encode_transcription(PLAIN, "verbose_json", cost_usd="0.01")
    assert json.loads(body) == {
        "task": "transcribe",
        "language": "",
        "duration": 3.5,
        "text": " Hello. ",
        "segments": [{"id": 0, "start": 0.0, "end": 3.5, "text": "Hello."}],
        "usage": {"type": "duration", "seconds": 3.5, "cost": 0.01},
    }
