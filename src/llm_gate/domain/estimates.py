"""A guess at how many tokens a request has, for callers who ask before they send; never used for money."""

from collections.abc import Iterable

BYTES_PER_TOKEN = 4
TOKENS_PER_MEDIA = 1_600
"""What one picture or document counts, whatever its size."""


def estimate_tokens(texts: Iterable[str | bytes], *, media: int = 0) -> int:
    """Return the UTF-8 bytes of all texts by four, rounded up, and a constant for each picture or document."""
    size_bytes = sum(len(text.encode() if isinstance(text, str) else text) for text in texts)
    return -(-size_bytes // BYTES_PER_TOKEN) + media * TOKENS_PER_MEDIA
