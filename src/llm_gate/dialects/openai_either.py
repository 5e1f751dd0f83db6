"""The chat operation over whichever of OpenAI's two forms a target is set to: chat completions or Responses."""

from collections.abc import Callable

from llm_gate.dialects.openai_chat import OpenAIChat
from llm_gate.dialects.openai_responses_outbound import OpenAIResponses
from llm_gate.domain.catalog import Api
from llm_gate.domain.provider import ChatCodec, ChatStream, Encoded, HttpReply, Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.domain.results import ChatResult


class OpenAIEither:
    """Asks in the form that `api` of the model names, else that of the provider, else as chat completions."""

    apis: tuple[Api, ...] = ("chat", "responses")

    def __init__(self, address: Callable[[Target, str], str]) -> None:
        self._chat = OpenAIChat(address)
        self._responses = OpenAIResponses(address)

    def encode(self, request: ChatRequest, target: Target) -> Encoded:
        """Build the request."""
        return self._codec(target).encode(request, target)

    def decode(self, reply: HttpReply, request: ChatRequest, target: Target) -> ChatResult:
        """Read a complete answer."""
        return self._codec(target).decode(reply, request, target)

    def open_stream(self, request: ChatRequest, target: Target) -> ChatStream:
        """Read a streamed answer."""
        return self._codec(target).open_stream(request, target)

    def _codec(self, target: Target) -> ChatCodec:
        api = target.model.api or target.deployment.spec.api
        return self._responses if api == "responses" else self._chat
