"""Speech in Gemini's wire format: a text read out by one voice or two, answered with samples that have no head.

Contract: https://ai.google.dev/gemini-api/docs/speech-generation
"""

from typing import Any

from msgspec import Struct

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects.gemini_images import Made, media_request, missing, not_carried, read_made, unpacked
from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import Medium, SpeechRequest, SpeechResult
from llm_gate.domain.provider import Exchanges, Facts, Send, Target

_FORMATS = ("wav", "pcm")
_UNNAMED = ("speed", "pitch", "volume", "emotion", "sample_rate")
_MOST_SPEAKERS = 2
_SAMPLES = frozenset({"audio/l16", "audio/pcm"})
_USUAL_RATE, _LEAST_RATE, _MOST_RATE = 24_000, 4_000, 192_000
_SAMPLE_BYTES, _SAMPLE_BITS = 2, 16
_PLAIN_FORM, _PLAIN_FORM_BYTES = 1, 16
_HEAD_BYTES = 44
_CUT = "the voice ends early: the model reached the most that it may say at once"


class _Sound(Struct, frozen=True, kw_only=True):
    """Samples of 16 bits, the lower byte first; `rate` in samples per second and channel."""

    data: bytes
    rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return len(self.data) / (self.rate * self.channels * _SAMPLE_BYTES)


class GeminiSpeech:
    """Reads a text out."""

    def run(self, request: SpeechRequest, target: Target, facts: Facts) -> Exchanges[SpeechResult]:
        """Make it.

        Raises:
            InvalidRequest: it asks for what this vendor does not do.
            ProviderError: the answer holds no voice, or tells of a failure.
        """
        del facts
        wanted = (request.format or _FORMATS[0]).lower()
        if wanted not in _FORMATS:
            raise InvalidRequest(
                f"response_format: {target.name} gives wav or pcm, not {request.format!r}",
                param="response_format",
                code="unsupported_input",
            )
        for name in _UNNAMED:
            if getattr(request, name) is not None:
                raise not_carried(name, target)
        settings: dict[str, Any] = {"responseModalities": ["AUDIO"]}
        speech = _speech_config(request, target)
        if speech:
            settings["speechConfig"] = speech
        text = f"{request.instructions}:\n{request.text}" if request.instructions else request.text
        reply = yield Send(
            request=media_request(target, [{"text": text}], settings, request.extra), is_paid=True
        )
        made = read_made(reply, target, "voice")
        sound = _sound(made, target)
        is_wav = wanted == _FORMATS[0]
        return SpeechResult(
            audio=Medium(
                data=wav_head(sound.rate, sound.channels, len(sound.data)) + sound.data
                if is_wav
                else sound.data,
                type="audio/wav" if is_wav else "audio/pcm",
            ),
            usage=made.usage,
            model=made.model,
            duration_s=sound.seconds,
            notes=(_CUT,) if made.reason == "length" else (),
        )


def _speech_config(request: SpeechRequest, target: Target) -> dict[str, Any]:
    """Return who speaks. A single speaker is a plain voice, since the form for several wants two."""
    speakers = request.speakers
    if len(speakers) > _MOST_SPEAKERS:
        raise InvalidRequest(f"speakers: {target.name} has at most {_MOST_SPEAKERS}", param="speakers")
    config: dict[str, Any] = {}
    if len(speakers) == _MOST_SPEAKERS:
        voices = [{"speaker": each.name, **_voice(_known(each.voice, target))} for each in speakers]
        config["multiSpeakerVoiceConfig"] = {"speakerVoiceConfigs": voices}
    elif speakers:
        config |= _voice(_known(speakers[0].voice, target))
    elif request.voice is not None:
        config |= _voice(request.voice)
    if request.language is not None:
        config["languageCode"] = request.language
    return config


def _voice(name: str) -> dict[str, Any]:
    return {"voiceConfig": {"prebuiltVoiceConfig": {"voiceName": name}}}


def _known(name: str, target: Target) -> str:
    """Return a speaker's voice in the catalog's writing; any where it lists none."""
    voices = target.model.media.voices if target.model.media is not None else ()
    found = next((each for each in voices if each.casefold() == name.casefold()), None)
    if voices and found is None:
        raise InvalidRequest(f"speakers: {target.name} has no voice {name!r}", param="speakers")
    return found or name


def _sound(made: Made, target: Target) -> _Sound:
    """Return the samples of all parts, which have to be of one kind.

    Raises:
        ContentFiltered: the vendor withheld them, or the rest of them.
        ProviderError: there are none.
    """
    kinds: set[tuple[int, int]] = set()
    pieces: list[bytes] = []
    for part in made.parts:
        if part.inline_data is None:
            continue
        data, kind = unpacked(part.inline_data.data), _kind(part.inline_data.mime_type)
        if data is None or kind is None:
            raise missing(made, "voice", target)
        pieces.append(data)
        kinds.add(kind)
    if not pieces or made.reason == "content_filter":
        raise missing(made, "voice", target)
    if len(kinds) > 1:
        raise bad_response(target, "holds a voice in several rates", status=made.status)
    rate, channels = kinds.pop()
    joined = b"".join(pieces)
    whole = len(joined) - len(joined) % (channels * _SAMPLE_BYTES)
    if not whole:
        raise missing(made, "voice", target)
    return _Sound(data=joined[:whole], rate=rate, channels=channels)


def _kind(media_type: str) -> tuple[int, int] | None:
    """Return rate and channels of "audio/L16;codec=pcm;rate=24000"; None where it is something else."""
    name, *rest = (item.strip().lower() for item in media_type.split(";"))
    if name not in _SAMPLES:
        return None
    said = {key.strip(): value.strip() for key, _, value in (item.partition("=") for item in rest)}
    rate, channels = said.get("rate", str(_USUAL_RATE)), said.get("channels", "1")
    if not (rate.isascii() and rate.isdecimal() and channels in {"1", "2"}):
        return None
    return (int(rate), int(channels)) if _LEAST_RATE <= int(rate) <= _MOST_RATE else None


def wav_head(rate: int, channels: int, size: int) -> bytes:
    """Return the 44 bytes that make a WAV file of samples of 16 bits; `size` in bytes."""
    frame = channels * _SAMPLE_BYTES

    def long(value: int) -> bytes:
        # A size that does not fit is written as the largest, as is usual for streams.
        return min(value, 0xFFFFFFFF).to_bytes(4, "little")

    def short(value: int) -> bytes:
        return value.to_bytes(2, "little")

    return b"".join(
        (
            b"RIFF",
            long(_HEAD_BYTES - 8 + size),
            b"WAVEfmt ",
            long(_PLAIN_FORM_BYTES),
            short(_PLAIN_FORM),
            short(channels),
            long(rate),
            long(rate * frame),
            short(frame),
            short(_SAMPLE_BITS),
            b"data",
            long(size),
        )
    )
