"""Asks a vendor of OpenAI's Responses format how many input tokens a request has.

Contract: https://developers.openai.com/api/reference/resources/responses/subresources/input_tokens
"""

from collections.abc import Callable

from llm_gate.dialects._counting import only, read_count
from llm_gate.dialects.openai_responses_outbound import OpenAIResponses
from llm_gate.domain.provider import HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest

# What is counted; the endpoint knows no other field.
_COUNTED = frozenset(
    {"model", "input", "tools", "tool_choice", "parallel_tool_calls", "text", "reasoning", "truncation"}
)


class OpenAICount:
    """Counts what the chat would send; `address` gives the full URL for a target and a path."""

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._address = address
        self._responses = OpenAIResponses(address)

    def encode(self, request: ChatRequest, target: Target) -> HttpRequest:
        """Build the request."""
        asked = self._responses.encode(request, target).request
        return only(asked, _COUNTED, self._address(target, "responses/input_tokens"))

    def decode(self, reply: HttpReply, target: Target) -> int:
        """Read a successful reply."""
        return read_count(reply, "input_tokens", target)
