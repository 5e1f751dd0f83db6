"""The gateway as a library: the same pipeline, stores and limits as the server's, in the caller's own process."""

from llm_gate.client.answers import CallQuote, ChatAnswer, EmbeddingAnswer, GateStatus
from llm_gate.client.blocking import BlockingLLMGate, BlockingTextStream
from llm_gate.client.contracts import (
    AudioGenerationResult,
    FaceSwapOptions,
    FaceSwapProvider,
    ImageEditOptions,
    ImageEditProvider,
    ImageGenerationOptions,
    ImageGenerationProvider,
    ImageGenerationResult,
    TranscriptionResult,
    VideoFailed,
    VideoGenerationOptions,
    VideoGenerationProvider,
    VideoGenerationResult,
    VideoNotReady,
)
from llm_gate.client.documented import (
    ClaudeProvider,
    CohereProvider,
    GeminiProvider,
    OllamaProvider,
    OpenAIProvider,
    gemini_structured_json_response,
    gemini_text_response,
    get_gemini_api_key,
    get_huggingface_api_key,
    huggingface_structured_json_response,
    huggingface_text_response,
)
from llm_gate.client.errors import GateError, QuotaExceeded
from llm_gate.client.factory import LLMFactory
from llm_gate.client.gate import LLMGate
from llm_gate.client.llm_provider import LLMProvider, LLMResponse
from llm_gate.client.research import ResearchAnswer, WorkflowQuote
from llm_gate.client.search import FoundPage, SearchAnswer
from llm_gate.client.stream import TextStream
from llm_gate.client.sync import llm_text_gen
from llm_gate.configuration import Source

__all__ = [
    "AudioGenerationResult",
    "BlockingLLMGate",
    "BlockingTextStream",
    "CallQuote",
    "ChatAnswer",
    "ClaudeProvider",
    "CohereProvider",
    "EmbeddingAnswer",
    "FaceSwapOptions",
    "FaceSwapProvider",
    "FoundPage",
    "GateError",
    "GateStatus",
    "GeminiProvider",
    "ImageEditOptions",
    "ImageEditProvider",
    "ImageGenerationOptions",
    "ImageGenerationProvider",
    "ImageGenerationResult",
    "LLMFactory",
    "LLMGate",
    "LLMProvider",
    "LLMResponse",
    "OllamaProvider",
    "OpenAIProvider",
    "QuotaExceeded",
    "ResearchAnswer",
    "SearchAnswer",
    "Source",
    "TextStream",
    "TranscriptionResult",
    "VideoFailed",
    "VideoGenerationOptions",
    "VideoGenerationProvider",
    "VideoGenerationResult",
    "VideoNotReady",
    "WorkflowQuote",
    "gemini_structured_json_response",
    "gemini_text_response",
    "get_gemini_api_key",
    "get_huggingface_api_key",
    "huggingface_structured_json_response",
    "huggingface_text_response",
    "llm_text_gen",
]
