"""The gateway as a library: the same pipeline, stores and limits as the server's, in the caller's own process."""

from llm_gate.client.errors import GateError, QuotaExceeded
from llm_gate.client.gate import LLMGate
from llm_gate.client.sync import llm_text_gen

__all__ = ["GateError", "LLMGate", "QuotaExceeded", "llm_text_gen"]
