"""LLM Gate: one gateway to every AI vendor.

What stands in `llm_gate.client` can be imported from here; it is loaded when it is first asked for.
"""

from importlib import import_module

# Not from typing, which would take longer to load than all the rest of this module.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from llm_gate.client import (
        AudioGenerationResult,
        BlockingLLMGate,
        BlockingTextStream,
        CallQuote,
        ChatAnswer,
        ClaudeProvider,
        CohereProvider,
        EmbeddingAnswer,
        FaceSwapOptions,
        FaceSwapProvider,
        FoundPage,
        GateError,
        GateStatus,
        GeminiProvider,
        ImageEditOptions,
        ImageEditProvider,
        ImageGenerationOptions,
        ImageGenerationProvider,
        ImageGenerationResult,
        LLMFactory,
        LLMGate,
        LLMProvider,
        LLMResponse,
        OllamaProvider,
        OpenAIProvider,
        QuotaExceeded,
        ResearchAnswer,
        SearchAnswer,
        Source,
        TextStream,
        TranscriptionResult,
        VideoFailed,
        VideoGenerationOptions,
        VideoGenerationProvider,
        VideoGenerationResult,
        VideoNotReady,
        WorkflowQuote,
        gemini_structured_json_response,
        gemini_text_response,
        get_gemini_api_key,
        get_huggingface_api_key,
        huggingface_structured_json_response,
        huggingface_text_response,
        llm_text_gen,
    )

__version__ = "0.1.0"

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
    "__version__",
    "gemini_structured_json_response",
    "gemini_text_response",
    "get_gemini_api_key",
    "get_huggingface_api_key",
    "huggingface_structured_json_response",
    "huggingface_text_response",
    "llm_text_gen",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("llm_gate.client"), name)
    raise AttributeError(f"module 'llm_gate' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
