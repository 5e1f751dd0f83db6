"""One HTTP request and its answer: headers, bounded body, the call's frame, and what the log will say of it."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from msgspec import Struct

from llm_gate.domain.access import ANYONE, LOCAL_APPLICATION, CallContext, Caller, Identity
from llm_gate.domain.cache import CacheWord
from llm_gate.domain.errors import InvalidRequest, NotAllowed, RequestTimedOut, TooLarge, UnsupportedMedia
from llm_gate.domain.pricing import Cost
from llm_gate.domain.provider import Target
from llm_gate.domain.tracing import NO_SPAN, Span
from llm_gate.domain.usage import Usage
from llm_gate.engine.deadline import Deadline
from llm_gate.http.failures import Failure

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON = "application/json"
EVENT_STREAM = "text/event-stream; charset=utf-8"
BODY_TIMEOUT_S = 60.0
"""How long a caller may take to send its body."""

MAX_LOGGED_BYTES = 16_384
"""How much of a body goes into the log where the operator has switched that on."""

_MAX_ID_CHARS = 128
_MAX_NAME_CHARS = 256
_MAX_STICKY_CHARS = 128
_MAX_FALLBACKS = 8
_MAX_TIMEOUT_MS = 604_800_000
TIMEOUT_HEADER = "x-llm-gate-timeout-ms"
FALLBACKS_HEADER = "x-llm-gate-fallbacks"
STICKY_HEADER = "x-llm-gate-sticky"


class ClientGone(Exception):
    """The caller closed the connection before it was answered."""


class Reply(Struct, frozen=True, kw_only=True):
    """A complete answer to a caller."""

    body: bytes
    status: int = 200
    content_type: str = JSON
    headers: Mapping[str, str] = {}


class Exchange:
    """One request on its way through the edge; `fresh_id` names it where the caller did not.

    `is_leaving` tells whether the process is about to end, so that no connection should be used again.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        fresh_id: str,
        max_body_bytes: int,
        log_prompts: bool,
        is_leaving: Callable[[], bool] | None = None,
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[str, str] = {
            name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.repeated: frozenset[str] = (
            frozenset() if len(self.headers) == len(scope["headers"]) else _repeated(scope["headers"])
        )
        self._scheme: str = scope.get("scheme", "http")
        self.query: bytes = scope.get("query_string", b"")
        self.received_at = datetime.now(UTC)
        self._started_s = perf_counter()
        self.identity: Identity = ANYONE
        client = scope.get("client")
        self.place: str = client[0] if client else ""
        self.request_id = _sane(self.headers.get("x-request-id")) or fresh_id
        self.path_value = ""
        self.public_url = ""
        self.id_header: str | None = None
        self.log: dict[str, Any] = {}
        self.is_answered = False
        # Whether an error can be said inside the stream that has begun; sound has no words for it.
        self.is_worded = True
        self.span: Span = NO_SPAN
        # Set where the work goes on without its caller, since what comes of it can be asked for again.
        self.outlives_caller = False
        self.sharing_headers: Sequence[tuple[bytes, bytes]] = ()
        # Set where an error inside a stream needs more than its surface knows, such as the number of the next event.
        self.write_stream_error: Callable[[Failure], bytes] | None = None
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._log_prompts = log_prompts
        self._is_leaving = is_leaving
        self._drops_body = False
        self._body_read = self.method in {"GET", "HEAD"}
        self._peeked: bytes | None = None

    @property
    def correlation_id(self) -> str | None:
        """The caller's own id of the matter, echoed in the answer."""
        return _sane(self.headers.get("x-correlation-id"))

    @property
    def client_id(self) -> str | None:
        """The application that calls; proxies drop header names with an underscore, so both are read."""
        return _as_text(self.headers.get("client_id") or self.headers.get("x-client-id"))

    @property
    def origin(self) -> str:
        """Where the caller sees this gateway: the operator's own word for it, or the scheme and host of the call."""
        return self.public_url or f"{self._scheme}://{self.headers.get('host', 'localhost')}"

    @property
    def credential(self) -> str | None:
        """The key that was presented, in either of the usual headers."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else self.headers.get("x-api-key")

    async def body(self) -> bytes:
        """Read the whole body.

        Raises:
            TooLarge: it is larger than the limit.
            RequestTimedOut: it did not arrive in time.
            ClientGone: the caller left.
        """
        if self._peeked is not None:
            # Handed out once, so that a large body is not kept while its answer is streamed.
            peeked, self._peeked = self._peeked, None
            return peeked
        length = self.headers.get("content-length", "")
        if length.isdigit() and int(length) > self._max_body_bytes:
            raise TooLarge(f"the body is larger than {self._max_body_bytes} bytes")
        pieces: list[bytes] = []
        room = self._max_body_bytes
        try:
            with Deadline(BODY_TIMEOUT_S):
                while not self._body_read:
                    piece = await self._piece()
                    pieces.append(piece.get("body", b""))
                    room -= len(pieces[-1])
                    if room < 0:
                        raise TooLarge(f"the body is larger than {self._max_body_bytes} bytes")
                    self._body_read = not piece.get("more_body")
        except TimeoutError:
            raise RequestTimedOut(f"the body did not arrive within {BODY_TIMEOUT_S:g} s") from None
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self._log_prompts:
            self.log["prompt"] = body[:MAX_LOGGED_BYTES].decode(errors="replace")
        return body

    async def peek_body(self) -> bytes:
        """Read the whole body and leave it for whoever reads it next; raises what `body` raises."""
        self._peeked = await self.body()
        return self._peeked

    def leave_body(self) -> None:
        """Answer without having read the body: the server drops it as it comes, if it is known to have an end.

        Then the connection can be used again. Who waits for a word before it sends the body may never send it.
        """
        length = self.headers.get("content-length", "")
        is_bounded = length.isdigit() and int(length) <= self._max_body_bytes
        self._drops_body = is_bounded and "expect" not in self.headers

    def tap(self, note: Callable[[Message], None]) -> None:
        """Show every message of the answer to someone before it is sent."""
        send = self._send

        async def tapped(message: Message) -> None:
            note(message)
            await send(message)

        self._send = tapped

    async def _piece(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message

    async def until_gone(self) -> None:
        """Return when the caller has left. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def context(self, *, user: str | None = None) -> CallContext:
        """Return the call's frame; `user` stands in where no X-User-Id header was sent.

        Raises:
            NotAllowed: another application or user is named than the key is for.
            InvalidRequest: the user's id is too long or no plain text, or a header of the call's own is malformed.
        """
        headers = self.headers
        hops = headers.get("x-llm-gate-hop", "")
        timeout = headers.get(TIMEOUT_HEADER)
        fallbacks = headers.get(FALLBACKS_HEADER)
        sticky = headers.get(STICKY_HEADER)
        return CallContext(
            request_id=self.request_id,
            caller=self.caller(user=user),
            received_at=self.received_at,
            headers=headers,
            correlation_id=self.correlation_id,
            timeout_s=None if timeout is None else _timeout_s(timeout),
            hops=tuple(filter(None, (hop.strip() for hop in hops.split(",")))) if hops else (),
            endpoint=self.path,
            quote_id=headers.get("x-llm-gate-quote"),
            fallbacks=() if fallbacks is None else _fallbacks(fallbacks),
            sticky=None if sticky is None else _sticky(sticky),
            span=self.span,
        )

    def caller(self, *, user: str | None = None) -> Caller:
        """Return on whose behalf the request is made, as `context` does."""
        identity, named = self.identity, self.client_id
        if identity.application is not None and named not in {None, identity.application}:
            raise NotAllowed("client_id: the key belongs to another application", code="client_mismatch")
        application = identity.application or named or LOCAL_APPLICATION
        header = _as_text(self.headers.get("x-user-id"))
        if identity.user is not None and header not in {None, identity.user}:
            raise NotAllowed("X-User-Id: the key belongs to another user", code="user_mismatch")
        user = identity.user or header or user or application
        for name, value in (("client_id", application), ("X-User-Id", user)):
            if len(value) > _MAX_NAME_CHARS or not value.isprintable():
                raise InvalidRequest(
                    f"{name}: must be printable text of at most {_MAX_NAME_CHARS} characters", param=name
                )
        self.log["user"] = user
        return Caller(tenant=identity.tenant, application=application, user=user, key=identity.key)

    def note_result(
        self,
        target: Target,
        usage: Usage | None,
        cost: Cost | None,
        *,
        attempts: int,
        upstream_s: float,
        cache: CacheWord | None = None,
    ) -> None:
        """Keep for the log line what the call came to, and what became of it at the cache."""
        if cache is not None:
            self.log["cache"] = cache
        self.log |= {
            "provider": target.provider,
            "model": target.model.name,
            "attempts": attempts,
            "input_tokens": usage.input_tokens if usage is not None else None,
            "output_tokens": usage.output_tokens if usage is not None else None,
            "cost_nanos": cost.nanos if cost is not None else None,
            "vendor_cost_nanos": usage.vendor_cost_nanos if usage is not None else None,
            "upstream_ms": round(upstream_s * 1000, 2),
        }

    async def reply(self, reply: Reply) -> None:
        """Send a complete answer."""
        headers = self._head(reply.content_type, reply.headers)
        headers.append((b"content-length", str(len(reply.body)).encode()))
        if not self._body_read and not self._drops_body and not self._leaves():
            # What the caller may still be sending is not read: the connection cannot be used again.
            headers.append((b"connection", b"close"))
        self.is_answered = True
        self.log["status"] = reply.status
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if self.method == "HEAD" else reply.body
        await self._send({"type": "http.response.body", "body": body})

    async def reply_empty(self, headers: Mapping[str, str]) -> None:
        """Send a 204, which has neither a body nor a type of one."""
        head = self._head(None, headers)
        has_body = self.headers.keys() & {"content-length", "transfer-encoding"}
        if not self._body_read and has_body and not self._leaves():
            head.append((b"connection", b"close"))
        self.is_answered = True
        self.log["status"] = 204
        await self._send({"type": "http.response.start", "status": 204, "headers": head})
        await self._send({"type": "http.response.body", "body": b""})

    async def begin_stream(self, headers: Mapping[str, str], *, content_type: str = EVENT_STREAM) -> None:
        """Send the head of a streamed answer."""
        self.is_worded = content_type == EVENT_STREAM
        head = self._head(content_type, {**headers, "cache-control": "no-store", "x-accel-buffering": "no"})
        self.is_answered = True
        self.log["status"] = 200
        await self._send({"type": "http.response.start", "status": 200, "headers": head})

    async def send_piece(self, data: bytes) -> None:
        """Send a piece of a streamed answer; waits while the caller reads slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self) -> None:
        """Finish a streamed answer."""
        await self._send({"type": "http.response.body", "body": b""})

    def _head(self, content_type: str | None, extra: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"x-request-id", self.request_id.encode()),
            (b"x-content-type-options", b"nosniff"),
            *self.sharing_headers,
        ]
        if content_type is not None:
            headers.append((b"content-type", content_type.encode()))
        if self._leaves():
            headers.append((b"connection", b"close"))
        if self.id_header is not None:
            headers.append((self.id_header.encode(), self.request_id.encode()))
        if self.correlation_id is not None:
            headers.append((b"x-correlation-id", self.correlation_id.encode()))
        headers += [(name.encode(), printable(value).encode()) for name, value in extra.items()]
        return headers

    def _leaves(self) -> bool:
        return self._is_leaving is not None and self._is_leaving()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request came in."""
        return perf_counter() - self._started_s


def printable(value: str) -> str:
    """Return a header value in which anything but visible ASCII and blanks is replaced."""
    return (
        value
        if value.isascii() and value.isprintable()
        else "".join(char if char.isascii() and char.isprintable() else "?" for char in value)
    )


def require_json(exchange: Exchange) -> None:
    """Refuse a body that does not say it is JSON, which also keeps plain web forms out.

    Raises:
        UnsupportedMedia: the content type is another one.
    """
    given = exchange.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != JSON:
        raise UnsupportedMedia(f"the content type must be {JSON}, not {given or 'absent'!r}")


def _timeout_s(text: str) -> float:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:_MAX_ID_CHARS]) <= _MAX_TIMEOUT_MS:
        raise InvalidRequest(
            f"{TIMEOUT_HEADER}: must be a number of milliseconds from 1 to {_MAX_TIMEOUT_MS}",
            param=TIMEOUT_HEADER,
        )
    return int(text) / 1000


def _fallbacks(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (_as_text(text) or "").split(","))
    if len(names) > _MAX_FALLBACKS or not all(_is_name(name, _MAX_NAME_CHARS) for name in names):
        raise InvalidRequest(
            f"{FALLBACKS_HEADER}: must be 1 to {_MAX_FALLBACKS} names with commas between them",
            param=FALLBACKS_HEADER,
        )
    return names


def _sticky(text: str) -> str:
    value = _as_text(text) or ""
    if not _is_name(value, _MAX_STICKY_CHARS):
        raise InvalidRequest(
            f"{STICKY_HEADER}: must be printable text of at most {_MAX_STICKY_CHARS} characters",
            param=STICKY_HEADER,
        )
    return value


def _is_name(text: str, most_chars: int) -> bool:
    return 0 < len(text) <= most_chars and text.isprintable()


def _repeated(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[str]:
    counts = Counter(name.lower() for name, _ in headers)
    return frozenset(name.decode("latin-1") for name, count in counts.items() if count > 1)


def _sane(text: str | None) -> str | None:
    if text is None:
        return None
    if not text or len(text) > _MAX_ID_CHARS or not text.isascii() or not text.isprintable():
        return None
    return text


def _as_text(value: str | None) -> str | None:
    """Return a header's value as people mean it: UTF-8 where it is that, since paths and bodies are."""
    if value is None or value.isascii():
        return value
    try:
        return value.encode("latin-1").decode()
    except UnicodeDecodeError:
        return value
