"""Hugging Face: chat and embeddings in the OpenAI dialect; pictures and films by fal-ai behind the same router.

Which name a model has at fal-ai is the catalog's to say, or else the hub's, which is asked before. The credential goes
to router and hub alone, whatever an answer names.
"""

from msgspec import structs

from llm_gate.dialects import openai
from llm_gate.providers.huggingface.codecs import HuggingFaceEdits, HuggingFaceFilms, HuggingFacePictures

provider = structs.replace(
    openai.provider,
    media={"image": HuggingFacePictures(), "image_edit": HuggingFaceEdits()},
    jobs={"video": HuggingFaceFilms()},
)
"""The dialect's own chat, embeddings and errors, and media beside them."""
