"""Speech."""

from collections.abc import Mapping

from llm_gate.domain.errors import InvalidRequest
from llm_gate.domain.media import SpeechRequest, SpeechResult
from llm_gate.domain.provider import Exchanges, Facts, Target
from llm_gate.providers.wavespeed.tasks import SYNC, fetched, merged, run_task

WITHIN_S = 180.0
"""How long a voice is waited for, in seconds."""

# What callers call moods that the vendor knows by fewer words.
_EMOTIONS: Mapping[str, str] = {
    "excited": "happy",
    "friendly": "happy",
    "warm": "happy",
    "calm": "neutral",
    "professional": "neutral",
    "serious": "neutral",
}
_USUAL_EMOTION = "happy"
_BOUNDS: Mapping[str, tuple[float, float]] = {"speed": (0.5, 2), "pitch": (-12, 12), "volume": (0.1, 10)}
# The vendor names languages in English; callers write their codes.
_LANGUAGES: Mapping[str, str] = {
    "zh": "Chinese",
    "yue": "Chinese,Yue",
    "en": "English",
    "ar": "Arabic",
    "ru": "Russian",
    "es": "Spanish",
    "fr": "French",
    "pt": "Portuguese",
    "de": "German",
    "tr": "Turkish",
    "nl": "Dutch",
    "uk": "Ukrainian",
    "vi": "Vietnamese",
    "id": "Indonesian",
    "ja": "Japanese",
    "it": "Italian",
    "ko": "Korean",
    "th": "Thai",
    "pl": "Polish",
    "ro": "Romanian",
    "el": "Greek",
    "cs": "Czech",
    "fi": "Finnish",
    "hi": "Hindi",
}
_TYPES: Mapping[str, str] = {
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "flac": "audio/flac",
    "pcm": "audio/pcm",
}


class SpeechCodec:
    """Reads a text out."""

    def run(self, request: SpeechRequest, target: Target, _facts: Facts) -> Exchanges[SpeechResult]:
        """Do it; see MediaCodec."""
        if not request.text.strip():
            raise InvalidRequest("the text is empty", param="input")
        for name in ("instructions", "speakers"):
            if getattr(request, name):
                raise InvalidRequest(f"{name}: {target.name} does not take it", param=name)
        for name, (least, most) in _BOUNDS.items():
            said = getattr(request, name)
            if said is not None and not least <= said <= most:
                raise InvalidRequest(f"{name}: expected {least} to {most}, not {said}", param=name)
        payload = {
            "text": request.text,
            "voice_id": request.voice,
            "speed": request.speed,
            "volume": request.volume,
            "pitch": request.pitch,
            "emotion": _emotion(request, target),
            "format": request.format,
            "sample_rate": request.sample_rate,
            "language_boost": _language(request.language),
            **SYNC,
        }
        outputs = yield from run_task(
            target.wire_model, merged(payload, request, target), target, within_s=WITHIN_S
        )
        usual = _TYPES.get(request.format or "mp3", "audio/mpeg")
        audio = yield from fetched(outputs[0], target, kind="audio", usual=usual)
        return SpeechResult(audio=audio, model=target.wire_model)


def _emotion(request: SpeechRequest, target: Target) -> str | None:
    spec = target.model.media
    if request.emotion is None:
        return _USUAL_EMOTION if spec is not None and "emotion" in spec.takes else None
    return _EMOTIONS.get(request.emotion.lower(), request.emotion)


def _language(said: str | None) -> str | None:
    if said is None:
        return None
    return _LANGUAGES.get(said.partition("-")[0].lower(), said)
