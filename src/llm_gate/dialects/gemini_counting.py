"""Asks Gemini how many input tokens a request has.

Contract: https://ai.google.dev/api/tokens
"""

import msgspec
from msgspec import structs

from llm_gate.dialects._counting import body_fields, read_count
from llm_gate.dialects.gemini_request import encode_chat, model_path, model_url
from llm_gate.domain.provider import HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest


class GeminiCount:
    """Counts what the chat would send, with its instructions and tools."""

    def encode(self, request: ChatRequest, target: Target) -> HttpRequest:
        """Build the request."""
        asked = encode_chat(request, target).request
        whole = {"model": model_path(target), **body_fields(asked)}
        body = msgspec.json.encode({"generateContentRequest": whole})
        return structs.replace(asked, url=model_url(target, "countTokens"), body=body)

    def decode(self, reply: HttpReply, target: Target) -> int:
        """Read a successful reply."""
        return read_count(reply, "totalTokens", target)
