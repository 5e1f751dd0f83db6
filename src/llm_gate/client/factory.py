"""`LLMFactory`: providers in an order of preference, and a prompt for whoever of them can answer.

Theory of operation: names are looked up when a prompt comes, each in the registry and then in the gateway's catalog.
All that is wanted of a call lies in that call: the next begins with the primary provider again. The attempts, pauses,
limits and the ledger are the gateway's, to which a class of the program's own is one provider more.
"""

import inspect
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, ClassVar

from llm_gate.client.blocking import BlockingLLMGate
from llm_gate.client.calls import LIBRARY, caller_of
from llm_gate.client.documented import REGISTRY, VendorProvider
from llm_gate.client.foreign import Desk, guarded
from llm_gate.client.gate import LLMGate
from llm_gate.client.llm_provider import LLMProvider, LLMResponse
from llm_gate.client.own import OwnPlaces
from llm_gate.client.prompting import (
    Narrator,
    Place,
    Prompt,
    ask,
    check_prompt,
    factory_policy,
    failed,
    formatted,
)
from llm_gate.client.sync import SHARED, Background
from llm_gate.client.usual import Usual, is_on, listed
from llm_gate.domain.errors import GateError
from llm_gate.domain.secret import Secret

DEFAULT_PRIMARY = next(iter(REGISTRY))

_ENDPOINT = "LLMFactory"
_NOT_AVAILABLE = "not available"
_MAX_NAME_CHARS = 64
_GIVEN = frozenset({inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD})

_logger = logging.getLogger("llm_gate.factory")


class LLMFactory:
    """Asks a primary provider, and its fallbacks in their order where that cannot answer.

    A provider is asked at most once per prompt, with repeats of its own: a used-up quota switches at once, and what
    passes is waited out. One without a key is left out, as is, with a warning, a name that nobody knows. Without
    arguments LLM_PRIMARY_PROVIDER and LLM_FALLBACK_PROVIDERS decide. `prompt_format` says in which words a provider,
    by its name, is to be asked; `user_id` is for whom calls are counted. With `wait` False, or LLM_GATE_NO_WAITING
    set, there are no pauses between attempts. `gate` is the gateway to use instead of the process's own.
    """

    PROVIDER_REGISTRY: ClassVar[dict[str, type[LLMProvider]]] = dict(REGISTRY)
    """The classes by the names under which they are asked."""

    def __init__(
        self,
        primary_provider: str | None = None,
        fallback_providers: Sequence[str] | None = None,
        *,
        prompt_format: Mapping[str, Callable[[str], str]] | None = None,
        user_id: str = LIBRARY,
        wait: bool = True,
        gate: BlockingLLMGate | None = None,
    ) -> None:
        self._background = SHARED if gate is None else gate.background
        environment = self._background.source.read().environment
        caller_of(user_id)  # what is wrong with it is said here
        self._user_id = user_id
        self._usual = Usual.of(environment)
        self._wait = wait and not is_on(environment, "LLM_GATE_NO_WAITING")
        self._primary = _name(primary_provider or environment.get("LLM_PRIMARY_PROVIDER") or DEFAULT_PRIMARY)
        if isinstance(fallback_providers, str):
            raise TypeError("fallback_providers: must be a list of names")
        named = (
            listed(environment, "LLM_FALLBACK_PROVIDERS")
            if fallback_providers is None
            else fallback_providers
        )
        self._fallbacks = tuple(_name(each) for each in named)
        self._formats = {_name(name): given for name, given in (prompt_format or {}).items()}
        self._made: dict[tuple[str, type[LLMProvider]], LLMProvider] = {}
        self._lock = threading.Lock()
        self._current = self._primary
        _logger.info("LLMFactory initialized with primary provider: %s", self._primary)

    @classmethod
    def register_provider(cls, name: str, provider_class: type[LLMProvider]) -> None:
        """Add a class of providers under a name, for every factory; a name that is taken is taken over.

        Raises:
            ValueError: it is no class of providers, or the name cannot be one.
        """
        given: object = provider_class
        if not (isinstance(given, type) and issubclass(given, LLMProvider)):
            raise ValueError("Must inherit from LLMProvider")  # noqa: TRY004 - the documented error
        name = _name(name)
        if "/" in name:
            raise ValueError("name: must have no slash in it")
        cls.PROVIDER_REGISTRY[name] = provider_class

    def generate_content(
        self,
        prompt: str,
        temperature: float | None = None,
        max_tokens: int | None = None,
        max_retries: int | None = None,
        retry_delay: float | None = None,
    ) -> LLMResponse:
        """Answer a prompt, by whoever of the providers can; what fails is told in the answer, and never raised.

        Args:
            prompt: what is asked.
            temperature: LLM_TEMPERATURE without it, else 0.0.
            max_tokens: how long the answer may be; LLM_MAX_TOKENS without it, else 1,024.
            max_retries: attempts at each provider; LLM_RETRY_MAX_ATTEMPTS without it, else 5.
            retry_delay: the first pause between them in seconds, which doubles each time up to a minute;
                LLM_RETRY_DELAY_SECONDS without it, else 5.

        Raises:
            TypeError: the prompt is no text.
            ValueError: the prompt is empty, or a number makes no sense.
        """
        check_prompt(prompt)
        usual = self._usual
        policy = factory_policy(
            usual.max_retries if max_retries is None else max_retries,
            usual.retry_delay if retry_delay is None else retry_delay,
            wait=self._wait,
        )
        said = {"temperature": temperature, "max_tokens": max_tokens}
        try:
            found = _Found(self._background.run(_own))
            self._find(found)
            wanted = Prompt(
                text=prompt,
                primary=self._primary,
                places=tuple(found.places),
                left=tuple(found.left),
                user_id=self._user_id,
                endpoint=_ENDPOINT,
                temperature=usual.temperature if temperature is None else temperature,
                max_tokens=usual.max_tokens if max_tokens is None else max_tokens,
                policy=policy,
                usual=frozenset(name for name, given in said.items() if given is None),
                texts=formatted(prompt, self._formats, [place.name for place in found.places]),
                desk=Desk(found.brought, copy_context()),
            )
            narrator = Narrator(wanted.places)
            response = self._background.run(lambda gate: ask(gate, wanted, narrator))
            self._current = narrator.answered or self._current
        except GateError as error:
            response = failed(self._primary, [error.message], error)
        if not response.success:
            _tell_failure(response)
        return response

    def get_provider_status(self) -> dict[str, Any]:
        """Say who is asked first, who then, whether they are configured, and who answered last.

        Raises:
            GateError: the gateway's configuration is faulty.
        """
        own = self._background.run(_own)
        primary, *fallbacks = (
            {"name": name, "available": self._is_available(own, name)}
            for name in (self._primary, *self._fallbacks)
        )
        return {"primary": primary, "fallbacks": fallbacks, "current": self._current}

    def _is_available(self, own: OwnPlaces, name: str) -> bool:
        kind = self.PROVIDER_REGISTRY.get(name)
        if kind is None:
            return own.is_configured(name.partition("/")[0])
        provider = self._provider(own, name, kind)
        return provider is not None and guarded(provider.is_available)[0] is True

    def _find(self, found: "_Found") -> None:
        """Look every name up: whom it means, and whether that one can be asked."""
        for name in dict.fromkeys((self._primary, *self._fallbacks)):
            kind = self.PROVIDER_REGISTRY.get(name)
            if kind is None:
                self._find_in_catalog(found, name)
                continue
            provider = self._provider(found.own, name, kind)
            if provider is None or not guarded(provider.is_available)[0]:
                found.leave(name)
            elif isinstance(provider, VendorProvider) and provider.is_plain:
                found.take(name, provider.vendor, self._background.run(provider.place))
            else:
                place = self._background.run(_placed(name, kind))
                found.take(name, name, place)
                found.brought[place.partition("/")[0]] = provider

    @staticmethod
    def _find_in_catalog(found: "_Found", name: str) -> None:
        head, slash, model = name.partition("/")
        canonical = found.own.canonical(head)
        if canonical is None:
            _logger.warning("Unknown LLM provider %r, skipped", name)
            found.left.append(f"{name}: unknown")
        elif found.own.is_configured(canonical):
            found.take(name, canonical, f"{canonical}{slash}{model}")
        else:
            found.leave(name)

    def _provider(self, own: OwnPlaces, name: str, kind: type[LLMProvider]) -> LLMProvider | None:
        """Return this factory's object of a class; None where none can be made."""
        with self._lock:
            known = self._made.get((name, kind))
            if known is not None:
                return known
            key = own.key_of(name)
            made, error = guarded(lambda: _made(kind, key, self._background))
            if made is None:
                reason = Secret(key).redact(str(error))
                _logger.warning("%s cannot be made, skipped: %s: %s", name, type(error).__name__, reason)
                return None
            self._made[name, kind] = made
            return made


class _Found:
    """Whom a prompt may be asked, and who is left out and why; `brought` are the program's own, by place."""

    def __init__(self, own: OwnPlaces) -> None:
        self.own = own
        self.places: list[Place] = []
        self.left: list[str] = []
        self.brought: dict[str, LLMProvider] = {}

    def take(self, name: str, provider: str, gate_name: str | None) -> None:
        if gate_name is None:
            self.leave(name)
        elif all(place.gate_name != gate_name for place in self.places):
            provider = self.own.canonical(provider) or provider
            self.places.append(Place(name=name, gate_name=gate_name, provider=provider))

    def leave(self, name: str) -> None:
        _logger.info("%s is not available, skipped", name)
        self.left.append(f"{name}: {_NOT_AVAILABLE}")


def _tell_failure(response: LLMResponse) -> None:
    details = response.metadata or {}
    if details.get("all_failed"):
        _logger.error("All LLM providers failed: [%s]", ", ".join(details["reasons"]))
    else:
        _logger.error("LLM generation failed: %s", response.error)


async def _own(gate: LLMGate) -> OwnPlaces:
    return gate.own


def _placed(name: str, kind: type[LLMProvider]) -> Callable[[LLMGate], Any]:
    async def place(gate: LLMGate) -> str:
        return gate.own.of_class(name, kind)

    return place


def _made(kind: type[LLMProvider], key: str, background: Background) -> LLMProvider:
    """Make an object of a class: with the key where the constructor requires something, else with nothing."""
    required = [
        each
        for each in inspect.signature(kind).parameters.values()
        if each.default is inspect.Parameter.empty
        and each.kind not in {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    ]
    make: Callable[..., LLMProvider] = kind
    if not required:
        made = make()
    elif required[0].kind in _GIVEN:
        made = make(key)
    else:
        made = make(**{required[0].name: key})
    if isinstance(made, VendorProvider):
        made.background = background
    return made


def _name(name: str) -> str:
    """Return a provider's name as it is looked up: in small letters, but for a model behind it.

    Raises:
        ValueError: it cannot be one.
    """
    head, slash, model = str(name).strip().partition("/")
    if not head or len(head) > _MAX_NAME_CHARS or not head.isprintable():
        raise ValueError(
            f"the name of a provider must be printable text of at most {_MAX_NAME_CHARS} characters"
        )
    return f"{head.lower()}{slash}{model}"
