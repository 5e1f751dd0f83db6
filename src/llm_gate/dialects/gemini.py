"""The Gemini dialect as one value: generateContent answers read here, its other sides in the modules beside.

Contract: https://ai.google.dev/api/generate-content
"""

from collections.abc import Sequence

from msgspec import Raw

from llm_gate.dialects._failures import bad_response
from llm_gate.dialects._gemini_logprobs import read_logprobs
from llm_gate.dialects._gemini_schema import (
    Blob,
    Candidate,
    FunctionCall,
    Reply,
    call_arguments,
    call_id,
    created_s,
    decode_error,
    is_blocked,
    is_present,
    media_kind,
    read_finish,
    read_replies,
    read_usage,
)
from llm_gate.dialects.gemini_counting import GeminiCount
from llm_gate.dialects.gemini_embeddings import GeminiEmbedding
from llm_gate.dialects.gemini_grounding import GeminiGrounding
from llm_gate.dialects.gemini_images import GeminiImages
from llm_gate.dialects.gemini_request import encode_chat
from llm_gate.dialects.gemini_speech import GeminiSpeech
from llm_gate.dialects.gemini_stream import GeminiChatStream
from llm_gate.dialects.gemini_transcription import GeminiTranscription
from llm_gate.dialects.gemini_videos import GeminiVideos
from llm_gate.domain.messages import MediaPart, Part, TextPart, ThinkingPart, ToolCallPart
from llm_gate.domain.provider import ChatStream, Encoded, HttpReply, Provider, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult, Choice

# What stands beside the text and has no neutral place, by wire name.
_NOTICES = (
    ("finishMessage", "finish_message"),
    ("safetyRatings", "safety_ratings"),
    ("citationMetadata", "citation_metadata"),
    ("groundingMetadata", "grounding_metadata"),
    ("urlContextMetadata", "url_context_metadata"),
)


class GeminiChat:
    """Chat as `generateContent` and `streamGenerateContent`."""

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        return encode_chat(request, target)

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:
        """Read a successful reply."""
        replies = read_replies(reply.body, target)
        if len(replies) != 1:
            raise bad_response(target, "is not one Gemini answer")
        return _read_result(replies[0], request, target)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Return a decoder for one streamed answer."""
        return GeminiChatStream(request, target)


def _read_result(answer: Reply, request: ChatRequest, target: Target) -> ChatResult:
    choices: list[Choice] = []
    calls = 0
    for position, candidate in enumerate(answer.candidates or ()):
        parts = _read_parts(candidate, answer, calls, request, target)
        found = sum(isinstance(part, ToolCallPart) for part in parts)
        calls += found
        reason = read_finish(candidate.finish_reason, target)
        if reason is None:
            raise bad_response(target, "has no finish reason")
        if reason == "stop" and found:
            reason = "tool_calls"
        index = position if candidate.index is None else candidate.index
        logprobs = read_logprobs(candidate.logprobs_result)
        choices.append(Choice(index=index, parts=parts, finish_reason=reason, logprobs=logprobs))
    if not choices:
        if not is_blocked(answer):
            raise bad_response(target, "has no candidates")
        choices.append(Choice(parts=(), finish_reason="content_filter"))
    return ChatResult(
        choices=tuple(sorted(choices, key=lambda choice: choice.index)),
        usage=read_usage(answer.usage_metadata),
        id=answer.response_id,
        model=answer.model_version,
        created_s=created_s(answer),
        notices=_read_notices(answer),
    )


def _read_parts(
    candidate: Candidate, answer: Reply, calls: int, request: ChatRequest, target: Target
) -> tuple[Part, ...]:
    parts: list[Part] = []
    for part in candidate.parts:
        signature = part.thought_signature
        call: FunctionCall | None = part.function_call
        if call is not None:
            parts.append(
                ToolCallPart(
                    id=call_id(call, answer, calls, request),
                    name=call.name,
                    arguments=call_arguments(call, target),
                    signature=signature,
                )
            )
            calls += 1
        elif part.thought:
            if part.text or signature:
                parts.append(ThinkingPart(text=part.text or "", signature=signature))
        elif part.text is not None or part.inline_data is not None:
            parts += _shown(part.text, part.inline_data)
            if signature:
                parts.append(ThinkingPart(signature=signature))
    return tuple(parts)


def _shown(text: str | None, blob: Blob | None) -> Sequence[Part]:
    if text:
        return (TextPart(text=text),)
    if blob is not None:
        media_type = blob.mime_type
        return (MediaPart(kind=media_kind(media_type), data=blob.data, media_type=media_type or None),)
    return ()


def _read_notices(answer: Reply) -> dict[str, Raw]:
    notices: dict[str, Raw] = {}
    if is_present(answer.prompt_feedback):
        notices["promptFeedback"] = answer.prompt_feedback
    for candidate in answer.candidates or ():
        for name, attribute in _NOTICES:
            raw: Raw = getattr(candidate, attribute)
            if is_present(raw):
                notices.setdefault(name, raw)
    return notices


provider = Provider(
    dialect="gemini",
    decode_error=decode_error,
    chat=GeminiChat(),
    embedding=GeminiEmbedding(),
    count=GeminiCount(),
    media={
        "image": GeminiImages(),
        "image_edit": GeminiImages(),
        "speech": GeminiSpeech(),
        "transcription": GeminiTranscription(),
        "search": GeminiGrounding(),
    },
    jobs={"video": GeminiVideos()},
)
