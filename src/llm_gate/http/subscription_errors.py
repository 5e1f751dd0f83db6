"""The error form of everything under /api: one flat body, which says what ran out and what would help."""

import math

from msgspec import UNSET

from llm_gate.dialects.subscription_faults import SubscriptionFault, encode_fault, limit_type, usage_info
from llm_gate.http.exchange import JSON
from llm_gate.http.failures import Failure


class SubscriptionSurface:
    """Writes errors as `{error, message, provider, usage_info, …}`."""

    id_header: str | None = None
    content_type = JSON

    def error(self, failure: Failure) -> bytes:
        """Write the body of an error answer."""
        facts = failure.quota
        wait_s = failure.retry_after_s
        wait = None if wait_s is None else math.ceil(wait_s)
        return encode_fault(
            SubscriptionFault(
                error=failure.message,
                message=failure.message,
                provider=failure.provider,
                usage_info=None if facts is None else usage_info(facts),
                code=failure.code,
                request_id=failure.request_id or UNSET,
                param=failure.param or UNSET,
                limit_type=UNSET if facts is None else limit_type(facts),
                retry_after=wait if wait is not None or facts is not None else UNSET,
                upgrade_to=UNSET if facts is None else facts.upgrade_to,
            )
        )

    def stream_error(self, failure: Failure) -> bytes:
        """Write an error inside a stream that has begun; no route here streams, others may share the form."""
        return b"event: error\ndata: " + self.error(failure) + b"\n\n"
