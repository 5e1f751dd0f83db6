"""What callers of the library catch: every error of the gateway, and the one that a limit is behind."""

from typing import Any

import msgspec

from llm_gate.dialects.subscription_faults import usage_info
from llm_gate.domain import errors
from llm_gate.domain.errors import GateError
from llm_gate.http.failures import failure_of

__all__ = ["GateError", "QuotaExceeded"]


class QuotaExceeded(errors.QuotaExceeded):
    """A limit leaves no room for the call; nothing was spent.

    `status_code` is what the server would answer with: 429, or 403 for what the plan does not include. `detail` is
    `{error, message, provider, usage_info}`, as the subscription API writes it. `retry_after_s` is the time until the
    limit resets, None where waiting does not help.
    """

    def __init__(self, error: errors.QuotaExceeded) -> None:
        super().__init__(error.message, error.facts, retry_after_s=error.retry_after_s)
        self.status_code = failure_of(error).status
        self.detail: dict[str, Any] = {
            "error": error.message,
            "message": error.message,
            "provider": error.facts.provider,
            # Through JSON, so that it can be passed on as it is: its amounts are written digit by digit.
            "usage_info": msgspec.json.decode(msgspec.json.encode(usage_info(error.facts))),
        }
