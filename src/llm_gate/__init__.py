"""LLM Gate: one gateway to every AI vendor."""

__version__ = "0.1.0"

__all__ = ["__version__"]
