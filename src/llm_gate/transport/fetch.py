"""Fetches what stands at addresses that callers and vendors name, and brings word to addresses that callers name.

Theory of operation: a host is resolved here, every address of it is checked, and the connection is made to what was
checked and to nothing else, so that a name cannot mean another place a moment later. The text of an address is read by
the same parser that the client connects by, as two parsers may see two hosts in one text; and every socket is checked
once more before it is opened. Redirects are followed by hand, each checked afresh. No credential, cookie or proxy ever
takes part.
"""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import cached_property
from io import BytesIO
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from llm_gate import __version__
from llm_gate.domain.blobs import FetchFailed
from llm_gate.domain.media import Medium
from llm_gate.transport.addresses import is_reachable

MAX_REDIRECTS = 3
OPEN_PORTS = frozenset({80, 443, 8080, 8443})
"""The ports that may be asked of hosts nobody vouches for."""

LookUp = Callable[[str, int, int], Awaitable[list[Any]]]
"""Finds the addresses of a host: its name, a port and an address family in, what getaddrinfo returns out."""

_SCHEMES = frozenset({"http", "https"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OK = 200
_CONNECTIONS = 64
_POST_S = 10.0
_CONNECT_S = 30.0
_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\\]")


async def system_look_up(host: str, port: int, family: int) -> list[Any]:
    """Ask the system for a host's addresses."""
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)


Origin = tuple[str, str, int]
"""Scheme, host and port."""


class GuardedFetcher:
    """The port `Fetcher`. `trusted_hosts` (host:port) may be reached though they are private.

    `ports` are those that may be asked of all other hosts, and `look_up` finds their addresses.
    """

    def __init__(
        self,
        *,
        max_redirects: int = MAX_REDIRECTS,
        trusted_hosts: Collection[str] = (),
        ports: Collection[int] = OPEN_PORTS,
        look_up: LookUp = system_look_up,
    ) -> None:
        self._max_redirects = max_redirects
        named = (_origin(f"http://{host}") for host in trusted_hosts)
        self._trusted = frozenset(origin[1:] for origin in named if origin is not None)
        self._ports = frozenset(ports)
        self._look_up = look_up

    @cached_property
    def _guarded(self) -> aiohttp.ClientSession:
        return self._session(
            aiohttp.TCPConnector(
                limit=_CONNECTIONS,
                resolver=CheckedResolver(self._look_up),
                use_dns_cache=False,
                socket_factory=_checked_socket,
            )
        )

    @cached_property
    def _open(self) -> aiohttp.ClientSession:
        # For what the operator or a vendor's own address vouches for.
        return self._session(aiohttp.TCPConnector(limit=_CONNECTIONS))

    def _session(self, connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"user-agent": f"llm-gate/{__version__}", "accept-encoding": "identity"},
            # `within_s` bounds the whole; the library's own limit of five minutes would cut long films off.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            auto_decompress=False,
            trust_env=False,
        )

    async def fetch(self, url: str, *, most_bytes: int, trusted: str = "", within_s: float = 60.0) -> Medium:
        """Fetch a medium. `trusted` is an origin (scheme://host:port) that may be reached though it is private.

        Raises:
            FetchFailed: it cannot be had; `reason` says why.
        """
        address = _parsed(url)
        try:
            async with asyncio.timeout(within_s):
                return await self._follow(address, most_bytes, _origin(trusted))
        except TimeoutError:
            raise FetchFailed(f"{_shown(address)} did not answer in time", reason="timeout") from None

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> int | None:
        """Bring word to an address, and return the status of the answer, of which nothing is read; None without one."""
        try:
            async with asyncio.timeout(_POST_S):
                address = _parsed(url)
                session = self._session_for(address, None)
                async with session.post(address, data=body, headers=headers, allow_redirects=False) as answer:
                    return answer.status
        except (aiohttp.ClientError, TimeoutError, FetchFailed, ValueError, OSError):
            return None

    def allows(self, url: str) -> bool:
        """Tell whether an address may be asked, as far as its text tells."""
        try:
            self._session_for(_parsed(url), None)
        except FetchFailed:
            return False
        return True

    async def _follow(self, address: URL, most_bytes: int, trusted: Origin | None) -> Medium:
        for _ in range(self._max_redirects + 1):
            session = self._session_for(address, trusted)
            try:
                async with session.get(address, allow_redirects=False) as answer:
                    if answer.status not in _REDIRECTS:
                        return await _read(answer, address, most_bytes)
                    location = answer.headers.get("location", "")
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if _was_refused(error):
                    raise FetchFailed(_not_open(address), reason="refused") from None
                raise FetchFailed(f"{_shown(address)} cannot be reached", reason="unreachable") from None
            address = _led_to(address, location)
        raise FetchFailed(f"{_shown(address)} is reached through too many others", reason="refused")

    def _session_for(self, address: URL, trusted: Origin | None) -> aiohttp.ClientSession:
        """Return what asks an address, if it may be asked as far as its text tells.

        Raises:
            FetchFailed: it may not.
        """
        origin = _origin_of(address)
        if origin is None:
            raise FetchFailed("only plain http and https addresses are fetched", reason="refused")
        if origin == trusted or origin[1:] in self._trusted:
            return self._open
        if origin[2] not in self._ports:
            raise FetchFailed(f"{_shown(address)}: the port is not allowed", reason="refused")
        if not _may_be_asked(origin[1]):
            raise FetchFailed(_not_open(address), reason="refused")
        return self._guarded

    async def close(self) -> None:
        """Close every connection."""
        for name in ("_guarded", "_open"):
            if name in self.__dict__:
                await self.__dict__[name].close()


class CheckedResolver(AbstractResolver):
    """Resolves names, and refuses those of which any address is not one that everybody can reach."""

    def __init__(self, look_up: LookUp = system_look_up) -> None:
        self._look_up = look_up

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the checked addresses of a host, to which alone a connection is made.

        Raises:
            OSError: the host is unknown, has no address, or not all of them may be asked.
        """
        found = await self._look_up(host, port, family)
        addresses = [str(entry[4][0]) for entry in found]
        if not addresses:
            raise OSError(f"{host} has no address")
        if not all(map(is_reachable, addresses)):
            raise _NotOpen(host)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=entry[0],
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for entry, address in zip(found, addresses, strict=True)
        ]

    async def close(self) -> None:
        """Close nothing."""


class _NotOpen(OSError):
    """A host, or an address of it, is not one that everybody can reach."""


def _checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """Make the socket for an address, as getaddrinfo writes it: the last look before a connection is made."""
    family, kind, protocol, _, place = address
    if not is_reachable(str(place[0])):
        raise _NotOpen(place[0])
    return socket.socket(family=family, type=kind, proto=protocol)


def _was_refused(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, _NotOpen):
            return True
        error = error.__cause__
    return False


def _may_be_asked(host: str) -> bool:
    """Tell whether a host, as it is written, may be asked: a name with letters, or a plain address for everybody."""
    try:
        ip_address(host)
    except ValueError:
        # What is no address must not be a number in disguise (0x7f.1, 2130706433, 0177.0.0.1).
        return bool(_NAME.fullmatch(host)) and not _NUMBER.fullmatch(host.rpartition(".")[2])
    return is_reachable(host)


def _parsed(url: str) -> URL:
    """Read an address that somebody named.

    Raises:
        FetchFailed: it is malformed, or carries a credential.
    """
    try:
        address = URL(url)
        # An empty name before the @ is dropped by URL.
        authority = urlsplit(url).netloc
    except ValueError:
        raise FetchFailed("the address is malformed", reason="refused") from None
    if "@" in authority or address.user is not None or _UNPRINTABLE.search(url):
        raise FetchFailed("only plain http and https addresses are fetched", reason="refused")
    return address


def _origin_of(address: URL) -> Origin | None:
    """Return the origin of an address; None where it has none that could be asked."""
    host, port = address.raw_host, address.port
    if address.scheme not in _SCHEMES or not host or not port:
        return None
    return address.scheme, host.lower(), port


def _origin(text: str) -> Origin | None:
    """Return the origin that a text names; None where it names none."""
    try:
        return _origin_of(URL(text))
    except ValueError:
        return None


def _led_to(address: URL, location: str) -> URL:
    """Return where an answer leads, relative to where it came from.

    Raises:
        FetchFailed: it leads nowhere, or from a safe connection to an open one.
    """
    if location:
        target = address.join(_parsed(location))
        if address.scheme != "https" or target.scheme == "https":
            return target
    raise FetchFailed(f"{_shown(address)} leads somewhere that is not followed", reason="refused")


async def _read(answer: aiohttp.ClientResponse, address: URL, most_bytes: int) -> Medium:
    if answer.status != _OK:
        raise FetchFailed(f"{_shown(address)} answered with status {answer.status}", reason="status")
    if any(each.strip().lower() != "identity" for each in answer.headers.getall("content-encoding", ())):
        raise FetchFailed(f"{_shown(address)} sent something packed", reason="type")
    if (answer.content_length or 0) > most_bytes:
        raise FetchFailed(f"{_shown(address)} has more than {most_bytes} bytes", reason="too_large")
    # One buffer, as a list of very small pieces would take many times their size.
    data = BytesIO()
    while piece := await answer.content.readany():
        if data.write(piece) and data.tell() > most_bytes:
            raise FetchFailed(f"{_shown(address)} has more than {most_bytes} bytes", reason="too_large")
    if not data.tell():
        raise FetchFailed(f"{_shown(address)} is empty", reason="type")
    return Medium(data=data.getvalue(), type=answer.content_type)


def _shown(address: URL) -> str:
    """Return what may be said of an address: neither its path nor its query, which may hold secrets."""
    return f"{address.scheme}://{address.raw_host}"


def _not_open(address: URL) -> str:
    return f"{_shown(address)} is not an address that everybody can reach"
