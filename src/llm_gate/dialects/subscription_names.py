"""How the subscription API spells limits, providers and buckets: the one table between its words and ours.

Its documents let one word stand for a provider or for a bucket, and some words for something else than they say.
"""

from collections.abc import Mapping

from llm_gate.domain.limits import Bucket

WIRE_LIMITS: Mapping[str, str] = {
    "ai_text_generation_calls": "text_calls",
    "stability_calls": "image_calls",
    "mistral_calls": "huggingface_calls",
    "mistral_tokens": "huggingface_tokens",
    "monthly_cost": "monthly_cost_usd",
    "mistral_ai_calls": "mistral_calls",
    "mistral_ai_tokens": "mistral_tokens",
    "stability_ai_calls": "stability_calls",
}
"""Limits that are spelt otherwise on the wire, with our names. All others are spelt alike."""

LISTED_LIMITS: tuple[str, ...] = (
    "ai_text_generation_calls",
    "gemini_calls",
    "openai_calls",
    "anthropic_calls",
    "mistral_calls",
    "tavily_calls",
    "serper_calls",
    "metaphor_calls",
    "firecrawl_calls",
    "exa_calls",
    "stability_calls",
    "image_edit_calls",
    "video_calls",
    "audio_calls",
    "wavespeed_calls",
    "gemini_tokens",
    "openai_tokens",
    "anthropic_tokens",
    "mistral_tokens",
    "monthly_cost",
)
"""The limits that every limits object has, as spelt on the wire."""

LISTED_GROUPS: tuple[str, ...] = (
    "gemini",
    "huggingface",
    "video",
    "audio",
    "image",
    "image_edit",
    "wavespeed",
    "tavily",
    "serper",
    "exa",
)
"""The groups that every breakdown has, used or not."""

CROSS_CUTS = frozenset({"wavespeed"})
"""Groups that show all of a provider, also what stands under a bucket's name already."""

_BY_PROVIDER: frozenset[Bucket] = frozenset({"text", "search", "embedding"})

WIRE_PROVIDERS: Mapping[str, str] = {
    "mistral": "huggingface",
    "mistral_ai": "mistral",
    "stability_ai": "stability",
}
"""Providers that are spelt otherwise on the wire, with our names."""

WIRE_BUCKETS: Mapping[str, tuple[Bucket, str | None]] = {
    "stability": ("image", "stability"),
    "image": ("image", None),
    "image_edit": ("image_edit", "wavespeed"),
    "video": ("video", "wavespeed"),
    "fal": ("video", "huggingface"),
    "fal-ai": ("video", "huggingface"),
    "audio": ("audio", "wavespeed"),
}
"""Words in a provider's place that mean whoever serves a bucket; with who does where nobody is named or configured."""

# Hugging Face is called by its name here; the word that stands for it elsewhere would hide another provider.
_SPELT_PROVIDERS: Mapping[str, str] = {
    ours: wire for wire, ours in WIRE_PROVIDERS.items() if ours in WIRE_PROVIDERS or ours in WIRE_BUCKETS
}
_SPELT: Mapping[str, str] = {ours: wire for wire, ours in WIRE_LIMITS.items()}


def wire_limit(name: str) -> str:
    """Return how a limit is spelt on the wire."""
    return _SPELT.get(name, name)


def limit_of_wire(name: str) -> str:
    """Return our name of a limit as it is spelt on the wire."""
    return WIRE_LIMITS.get(name, name)


def wire_group(bucket: Bucket, provider: str) -> str:
    """Return under which name a breakdown shows usage: text, search and vectors by provider, the rest by bucket."""
    return _SPELT_PROVIDERS.get(provider, provider) if bucket in _BY_PROVIDER else bucket
