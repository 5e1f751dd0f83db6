"""Delivers alerts to the operator's webhook, beside all calls and in the way of none.

Theory of operation: every process looks now and then for alerts that wait. Whoever claims one, by a conditional
change of its row, has it for a lease and sends it; the receiver's 2xx ends the matter. Anything else is tried again
with growing pauses, for a day. So each alert is delivered by one process, and twice only where that process dies
between the delivery and its note of it; the alert's id tells the receiver.
"""

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Generic, Protocol, TypeVar

import msgspec
from msgspec import Struct

from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.limits import limit_named
from llm_gate.domain.money import format_usd
from llm_gate.domain.reports import AlertLine
from llm_gate.domain.windows import instant

SIGNATURE_HEADER = "x-llm-gate-signature"
ID_HEADER = "x-llm-gate-alert"
LOOK_EVERY_S = 1.0
BATCH = 16
LEASE_MS = 30_000
"""Longer than a batch can take: its deliveries go out at once, and each has a few seconds."""

KEPT_MS = 24 * 3_600_000
"""How long an alert is tried for."""

_FIRST_PAUSE_MS, _LONGEST_PAUSE_MS = 1_000, 3_600_000

_logger = logging.getLogger("llm_gate.alerts")


class Messenger(Protocol):
    """Carries messages to the operator's webhook."""

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """Send a message and return the status of the answer; None when there was none."""

    async def close(self) -> None:
        """Close the connections."""


class Webhook(Struct, frozen=True, kw_only=True):
    """Where alerts go, and the secret that signs them."""

    url: str
    secret: bytes


class Message(Struct, frozen=True, kw_only=True):
    """An alert as it is sent. `used` and `cap` are in the limit's unit; money is in US dollars, as decimal text."""

    id: str
    type: str = "limit"
    tenant: str
    scope: str
    subject: str
    user: str | None
    limit: str
    threshold_percent: int
    used: int | str
    cap: int | str
    plan: str
    window_start: str
    window_end: str
    created_at: str


class Waiting(Protocol):
    """One thing that waits to be sent."""

    @property
    def id(self) -> str:
        """What tells it from any other."""

    @property
    def tries(self) -> int:
        """How often it was sent, this time included."""


L = TypeVar("L", bound=Waiting)
L_co = TypeVar("L_co", bound=Waiting, covariant=True)


class Outbox(Protocol[L_co]):
    """Where things wait to be sent. Every method may raise StoreUnavailable."""

    async def claim(self, now_ms: int, *, lease_ms: int, oldest_ms: int, limit: int) -> tuple[L_co, ...]:
        """Take what waits, and keep every other process from it for the lease."""

    async def note_sent(self, id: str, at_ms: int, /) -> None:  # noqa: A002 - it is one
        """Note that it was delivered."""

    async def note_failed(self, id: str, next_try_ms: int, /) -> None:  # noqa: A002 - it is one
        """Note when it may be sent again."""


class AlertDelivery(Generic[L]):
    """The task that delivers, each as `write` has it.

    `webhook` may be replaced at any time; None leaves everything where it is.
    """

    def __init__(
        self,
        *,
        alerts: Outbox[L],
        write: Callable[[L], bytes],
        messenger: Messenger,
        webhook: Webhook | None,
        now_ms: Callable[[], int],
    ) -> None:
        self.webhook = webhook
        self._alerts = alerts
        self._write = write
        self._messenger = messenger
        self._now_ms = now_ms
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look for alerts."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Stop; what is under way is tried again by whoever looks next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._messenger.close()

    async def _run(self) -> None:
        was_away = False
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                while self.webhook is not None and await self.deliver(self.webhook):
                    pass
            except StoreUnavailable as error:
                if not was_away:
                    _logger.warning("alerts cannot be looked for", extra={"error": error.message})
                was_away = True
            else:
                was_away = False

    async def deliver(self, webhook: Webhook) -> int:
        """Send what waits now, a batch at most, and return how many alerts that were."""
        now_ms = self._now_ms()
        claimed = await self._alerts.claim(now_ms, lease_ms=LEASE_MS, oldest_ms=now_ms - KEPT_MS, limit=BATCH)
        await asyncio.gather(*(self._send(line, webhook) for line in claimed))
        return len(claimed)

    async def _send(self, line: L, webhook: Webhook) -> None:
        body = self._write(line)
        at_s = self._now_ms() // 1000
        headers = {
            "content-type": "application/json",
            ID_HEADER: line.id,
            SIGNATURE_HEADER: signature(webhook.secret, at_s, body),
        }
        status = await self._messenger.post(webhook.url, body, headers)
        if status is not None and 200 <= status < 300:  # noqa: PLR2004 - what 2xx means
            await self._alerts.note_sent(line.id, self._now_ms())
            return
        pause_ms = min(_FIRST_PAUSE_MS << min(line.tries - 1, 20), _LONGEST_PAUSE_MS)
        _logger.warning("an alert was not accepted", extra={"alert": line.id, "status": status})
        await self._alerts.note_failed(line.id, self._now_ms() + pause_ms)


def message(line: AlertLine) -> bytes:
    """Write an alert as it is sent."""
    is_money = limit_named(line.limit_name).is_money
    return msgspec.json.encode(
        Message(
            id=line.id,
            tenant=line.tenant,
            scope=line.scope,
            subject=line.subject,
            user=line.user or None,
            limit=line.limit_name,
            threshold_percent=line.threshold,
            used=format_usd(line.used) if is_money else line.used,
            cap=format_usd(line.cap) if is_money else line.cap,
            plan=line.plan,
            window_start=instant(line.start_ms).isoformat(),
            window_end=instant(line.end_ms).isoformat(),
            created_at=instant(line.created_ms).isoformat(),
        )
    )


def signature(secret: bytes, at_s: int, body: bytes) -> str:
    """Sign a message: the HMAC-SHA-256 of its time, a dot and its body."""
    signed = hmac.digest(secret, b"%d." % at_s + body, sha256).hex()
    return f"t={at_s},v1={signed}"
