"""What a provider of the factory is, and what it answers: the names and shapes are the factory document's."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

TEMPERATURE = 0.0
MAX_TOKENS = 1_024


@dataclass
class LLMResponse:
    """One answer, or what was in its way: then `success` is False, `content` is empty and `error` says why."""

    success: bool
    content: str
    provider_name: str
    error: str | None = None
    metadata: dict[str, Any] | None = None


class LLMProvider(ABC):
    """Somebody who answers prompts. It may raise, or return an unsuccessful answer: both are failures."""

    @abstractmethod
    def generate_content(
        self, prompt: str, temperature: float = TEMPERATURE, max_tokens: int = MAX_TOKENS
    ) -> LLMResponse:
        """Answer a prompt."""

    @abstractmethod
    def get_provider_name(self) -> str:
        """Return the name it goes by."""

    @abstractmethod
    def is_available(self) -> bool:
        """Tell whether it is configured; it need not be reachable."""
