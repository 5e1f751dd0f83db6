"""Asks a vendor of Anthropic's Messages format how many input tokens a request has.

Contract: https://platform.claude.com/docs/en/api/messages-count-tokens
"""

from llm_gate.dialects._counting import only, read_count
from llm_gate.dialects.anthropic_requests import write_request
from llm_gate.domain.provider import HttpReply, HttpRequest, Target
from llm_gate.domain.requests import ChatRequest

# What is counted; the vendor refuses any other field.
_COUNTED = frozenset(
    {
        "cache_control",
        "context_management",
        "mcp_servers",
        "messages",
        "model",
        "output_config",
        "output_format",
        "speed",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)


class AnthropicCount:
    """Counts what the chat would send."""

    def encode(self, request: ChatRequest, target: Target) -> HttpRequest:
        """Build the request."""
        asked = write_request(request, target).request
        return only(asked, _COUNTED, f"{asked.url}/count_tokens")

    def decode(self, reply: HttpReply, target: Target) -> int:
        """Read a successful reply."""
        return read_count(reply, "input_tokens", target)
