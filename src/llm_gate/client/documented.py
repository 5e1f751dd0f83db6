"""The names of the original documents that stand for one vendor: providers of the factory, and plain functions.

All of them go through the gateway like everything else. What the documents leave out, the originals' names fill in.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from llm_gate.client.calls import LIBRARY
from llm_gate.client.gate import LLMGate
from llm_gate.client.llm_provider import MAX_TOKENS, TEMPERATURE, LLMProvider, LLMResponse
from llm_gate.client.prompting import Narrator, Place, Prompt, ask, check_prompt, factory_policy, failed
from llm_gate.client.sync import SHARED, Background
from llm_gate.client.text import TextCall
from llm_gate.domain.errors import GateError, NotFound
from llm_gate.domain.secret import Secret

_STRUCTURED_MAX_TOKENS = 8_192
_TEXT_MAX_TOKENS = 2_048
_GEMINI, _HUGGINGFACE = "gemini", "huggingface"


class VendorProvider(LLMProvider):
    """A vendor of the catalog, asked through the gateway: once, without repeats, which are the factory's matter.

    Without `api_key` it is called with the key of the configuration, and with that one where it is another.
    """

    vendor: ClassVar[str]

    def __init__(self, api_key: str | None = None) -> None:
        self.background: Background = SHARED
        self._key = Secret(api_key) if api_key else None

    @property
    def is_plain(self) -> bool:
        """Whether it asks as it always does, and nothing of a program's own is behind it."""
        return type(self).generate_content is VendorProvider.generate_content

    async def place(self, gate: LLMGate) -> str | None:
        """Return the name under which the gateway finds it; None where it cannot be called."""
        if self._key is None:
            return self.vendor if gate.own.is_configured(self.vendor) else None
        return gate.own.with_key(self.vendor, self._key.reveal())

    def generate_content(
        self, prompt: str, temperature: float = TEMPERATURE, max_tokens: int = MAX_TOKENS
    ) -> LLMResponse:
        """Answer a prompt; what fails is told in the answer.

        Raises:
            TypeError: the prompt is no text.
            ValueError: the prompt is empty.
        """
        check_prompt(prompt)

        async def answered(gate: LLMGate) -> LLMResponse:
            name = await self.place(gate)
            provider = gate.own.canonical(self.vendor) or self.vendor
            found = () if name is None else (Place(name=self.vendor, gate_name=name, provider=provider),)
            wanted = Prompt(
                text=prompt,
                primary=self.vendor,
                places=found,
                left=() if found else (f"{self.vendor}: not available",),
                user_id=LIBRARY,
                endpoint=type(self).__name__,
                temperature=temperature,
                max_tokens=max_tokens,
                policy=factory_policy(1, 0.0, wait=True),
                # What is as usual was perhaps not asked for.
                usual=frozenset({"temperature"} if temperature == TEMPERATURE else ()),
            )
            return await ask(gate, wanted, Narrator(found))

        try:
            return self.background.run(answered)
        except GateError as error:
            return failed(self.vendor, [error.message], error)

    def get_provider_name(self) -> str:
        """Return the name it goes by."""
        return self.vendor

    def is_available(self) -> bool:
        """Tell whether it has a key; it need not be reachable."""
        return self.background.run(self.place) is not None


class GeminiProvider(VendorProvider):
    """Google Gemini."""

    vendor = _GEMINI


class ClaudeProvider(VendorProvider):
    """Anthropic's Claude."""

    vendor = "claude"


class OpenAIProvider(VendorProvider):
    """OpenAI."""

    vendor = "openai"


class CohereProvider(VendorProvider):
    """Cohere."""

    vendor = "cohere"


class OllamaProvider(VendorProvider):
    """Models of one's own machine, behind Ollama."""

    vendor = "ollama"


REGISTRY: Mapping[str, type[LLMProvider]] = {
    kind.vendor: kind
    for kind in (GeminiProvider, ClaudeProvider, OpenAIProvider, CohereProvider, OllamaProvider)
}
"""The classes that every factory knows, the usual primary one first."""


def get_gemini_api_key() -> str:
    """Return the key that the environment has for Gemini.

    Raises:
        NotFound: it has none.
    """
    return _key(_GEMINI)


def get_huggingface_api_key() -> str:
    """Return the token that the environment has for Hugging Face.

    Raises:
        NotFound: it has none.
    """
    return _key(_HUGGINGFACE)


def gemini_text_response(  # noqa: PLR0917 - the original's parameters
    prompt: str,
    temperature: float | None = None,
    top_p: float | None = None,
    n: int = 1,
    max_tokens: int | None = None,
    system_prompt: str | None = None,
    *,
    model: str = "",
    user_id: str = LIBRARY,
) -> str:
    """Answer a prompt by Gemini, as text; the usual settings are those of `llm_text_gen`, and 2,048 tokens.

    Raises:
        ValueError: more than one answer is wanted.
        QuotaExceeded: a limit leaves no room.
        GateError: it could not answer.
    """
    if n != 1:
        raise ValueError("n: there is one answer")
    return _text(
        TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            user_id=user_id,
            model=f"{_GEMINI}/{model}",
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            usual_max_tokens=_TEXT_MAX_TOKENS,
            endpoint="gemini_text_response",
        )
    )


def gemini_structured_json_response(  # noqa: PLR0913, PLR0917 - the original's parameters
    prompt: str,
    schema: Mapping[str, Any],
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    max_tokens: int | None = None,
    system_prompt: str | None = None,
    *,
    model: str = "",
    user_id: str = LIBRARY,
) -> Any:
    """Answer a prompt by Gemini, as an object that fits a schema; the usual settings are as for text, and 8,192 tokens.

    Raises:
        AnswerNotInForm: the answer does not fit.
        QuotaExceeded: a limit leaves no room.
        GateError: it could not answer.
    """
    return _asked(
        TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            json_struct=schema,
            user_id=user_id,
            model=f"{_GEMINI}/{model}",
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            max_tokens=max_tokens,
            usual_max_tokens=_STRUCTURED_MAX_TOKENS,
            endpoint="gemini_structured_json_response",
        )
    )


def huggingface_text_response(  # noqa: PLR0917 - the original's parameters
    prompt: str,
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    top_p: float | None = None,
    system_prompt: str | None = None,
    *,
    user_id: str = LIBRARY,
) -> str:
    """Answer a prompt by a model on Hugging Face, as text; the usual settings are those of `gemini_text_response`.

    Raises:
        QuotaExceeded: a limit leaves no room.
        GateError: it could not answer.
    """
    return _text(
        TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            user_id=user_id,
            model=f"{_HUGGINGFACE}/{model}",
            temperature=temperature,
            top_p=top_p,
            max_tokens=max_tokens,
            usual_max_tokens=_TEXT_MAX_TOKENS,
            endpoint="huggingface_text_response",
        )
    )


def huggingface_structured_json_response(  # noqa: PLR0917 - the original's parameters
    prompt: str,
    schema: Mapping[str, Any],
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    system_prompt: str | None = None,
    *,
    user_id: str = LIBRARY,
) -> Any:
    """Answer a prompt by a model on Hugging Face, as an object that fits a schema.

    Raises:
        AnswerNotInForm: the answer does not fit.
        QuotaExceeded: a limit leaves no room.
        GateError: it could not answer.
    """
    return _asked(
        TextCall(
            prompt=prompt,
            system_prompt=system_prompt,
            json_struct=schema,
            user_id=user_id,
            model=f"{_HUGGINGFACE}/{model}",
            temperature=temperature,
            max_tokens=max_tokens,
            usual_max_tokens=_STRUCTURED_MAX_TOKENS,
            endpoint="huggingface_structured_json_response",
        )
    )


def _asked(wanted: TextCall) -> Any:
    return SHARED.run(lambda gate: gate.generate(wanted))


def _text(wanted: TextCall) -> str:
    return str(_asked(wanted))


def _key(vendor: str) -> str:
    async def find(gate: LLMGate) -> tuple[str, str]:
        return gate.own.key_of(vendor), gate.gateway.directory.hint(vendor)

    key, hint = SHARED.run(find)
    if not key:
        raise NotFound(f"provider {vendor!r} has no key: {hint}", code="provider_not_configured")
    return key
