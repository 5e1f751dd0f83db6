"""The guarded fetcher against real servers, one of which nobody may ever reach: it counts who tries."""

import asyncio
import ssl
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from socket import AF_INET, AF_INET6, SOCK_STREAM

import aiohttp
import pytest

from llm_gate.domain.blobs import FetchFailed
from llm_gate.transport.fetch import CheckedResolver, GuardedFetcher

TLS = Path(__file__).parents[1] / "support" / "tls"
PORT = "{port}"
MOST = 1_000

LOCAL_NAMES = ("localhost", "LOCALHOST", "app.localhost", "ip6-localhost", "localtest.example")
LITERALS = (
    *(f"127.{a}.{b}.{c}" for a in (0, 1, 127, 255) for b in (0, 9) for c in (1, 254)),
    *(f"10.{a}.{b}.1" for a in (0, 128, 255) for b in (0, 255)),
    *(f"172.{a}.0.1" for a in range(16, 32)),
    *(f"192.168.{a}.1" for a in (0, 1, 100, 255)),
    *(f"100.{a}.0.1" for a in (64, 100, 127)),
    *(f"169.254.{a}.{b}" for a in (0, 169, 255) for b in (1, 254)),
    *(f"{a}.1.2.3" for a in range(224, 256)),
    *(f"0.0.0.{a}" for a in (0, 1, 255)),
    "192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.254 198.51.100.1 203.0.113.1 255.255.255.255",
)
LITERALS = tuple(one for text in LITERALS for one in text.split())
WRAPPED = ("127.0.0.1", "10.0.0.1", "169.254.169.254", "192.168.1.1", "0.0.0.0", "8.8.8.8")


def hexadecimal(address):
    """Write an IPv4 address as two groups of an IPv6 one."""
    number = int(ip_address(address))
    return f"{number >> 16:x}:{number & 0xFFFF:x}"


SIXES = (
    *("::", "::1", "0:0:0:0:0:0:0:1", "fe80::1", "febf::1", "fec0::1", "feff::1", "fc00::1", "fd00:ec2::254"),
    *(
        "ff02::1",
        "ff0e::1",
        "100::1",
        "2001:db8::1",
        "3fff::1",
        "5f00::1",
        "2001:2::1",
        "2001:10::1",
        "2001:20::1",
    ),
    *("64:ff9b:1::1", "::1%25lo", "fe80::1%25eth0", "2606:4700::1%25eth0", "v1.a", "::ffff:1.2.3"),
    *(f"::ffff:{one}" for one in WRAPPED),
    *(f"::{one}" for one in WRAPPED),
    *(f"::ffff:0:{one}" for one in WRAPPED),
    *(f"64:ff9b::{one}" for one in WRAPPED),
    *(f"::ffff:{hexadecimal(one)}" for one in WRAPPED),
    *(f"64:ff9b::{hexadecimal(one)}" for one in WRAPPED),
    *(f"64:ff9b:1::{hexadecimal(one)}" for one in WRAPPED),
    *(f"2002:{hexadecimal(one)}::1" for one in WRAPPED),
    *(f"2001:0:{hexadecimal(one)}::1" for one in WRAPPED),
)


def odd(address):
    """Return other ways to write an IPv4 address that some parser somewhere takes."""
    a, b, c, d = (int(part) for part in address.split("."))
    number = int(ip_address(address))
    return (
        *(str(number), f"0x{number:x}", f"0X{number:08X}", f"0{number:o}", f"{a}.{number & 0xFFFFFF}"),
        *(f"{a}.{b}.{c << 8 | d}", f"0{a:o}.{b}.{c}.{d}", f"000{a:o}.{b}.{c}.{d}", f"0x{a:x}.{b}.{c}.{d}"),
        *(f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}", f"{a}.{b}.{c}.0x{d:x}"),
        *(f"{a:03}.{b:03}.{c:03}.{d:03}", f"{address}.", f"{address}..", f".{address}", f"{a}..{b}.{c}.{d}"),
        *(
            f"{a}。{b}。{c}。{d}",
            f"{a}.{b}.{c}。{d}",
            f"{a}\uff0e{b}\uff0e{c}\uff0e{d}",
            f"{a}｡{b}｡{c}｡{d}",
            f"{address}。",
        ),
        *(
            f"%3{str(a)[0]}{str(a)[1:]}.{b}.{c}.{d}",
            f"{a}%2e{b}%2e{c}%2e{d}",
            f"{address}%00",
            f"{address}%20",
        ),
        *("".join(chr(ord(sign) + 0xFEE0) if sign.isdigit() else sign for sign in address),),
        *("".join(chr(0x2460 + int(sign) - 1) if sign in "123456789" else sign for sign in address),),
        *(f"[{address}]", f"a@{address}", f"@{address}", f"a:b@{address}", f"{address}\t", f"\t{address}"),
    )


ODD = dict.fromkeys(
    one
    for address in ("127.0.0.1", "127.0.0.254", "10.0.0.1", "169.254.169.254", "0.0.0.0")
    for one in odd(address)
)
URLS = {
    "IPv4": tuple(f"http://{one}:{PORT}/" for one in LITERALS),
    "IPv6": tuple(f"http://[{one}]:{PORT}/" for one in SIXES),
    "odd": tuple(f"http://{one}:{PORT}/" for one in ODD),
    "odd, safe": tuple(f"https://{one}:{PORT}/" for one in ODD),
    "names": tuple(
        f"{scheme}://{one}:{PORT}/" for one in LOCAL_NAMES for scheme in ("http", "https", "HTTP")
    ),
    "text": (
        *("", "/", "x", "http:", "http://", "http:///", f"http:///127.0.0.1:{PORT}/", f"//127.0.0.1:{PORT}/"),
        *(
            f"http:127.0.0.1:{PORT}",
            f"http:/127.0.0.1:{PORT}/",
            f"ftp://127.0.0.1:{PORT}/",
            "file:///etc/passwd",
        ),
        *(
            f"gopher://127.0.0.1:{PORT}/",
            "data:image/png;base64,AAAA",
            f"ws://127.0.0.1:{PORT}/",
            "javascript:1",
        ),
        *(
            f"http://8.8.8.8\\@127.0.0.1:{PORT}/",
            f"http://8.8.8.8#@127.0.0.1:{PORT}/\\",
            f"http://[::1:{PORT}/",
        ),
        *(
            f"http://8.8.8.8@127.0.0.1:{PORT}/",
            f"http://127.0.0.1:{PORT}\\@8.8.8.8/",
            "http://127.0.0.1:99999/",
        ),
        *(f"\nhttp://127.0.0.1:{PORT}/", f"http://127.0.0.1:\t{PORT}/", f"http://127.0.0.1\r\n:{PORT}/"),
        *(f"http://::1:{PORT}/", f"http://a b:{PORT}/", f"http://a;b:{PORT}/", f"http://-:{PORT}:80/"),
        *(
            "http://127.0.0.1:0/",
            "http://8.8.8.8:0/",
            "http://\ud800/",
            "http://*/",
            f"http://[localhost]:{PORT}/",
        ),
        *(f"http+unix://127.0.0.1:{PORT}/", f"unix://127.0.0.1:{PORT}/", f" http://127.0.0.1:{PORT}/"),
    ),
}


async def local_look_up(host, port, family):
    """Find this machine under every name, as whoever owns a name may have it."""
    return [(AF_INET, SOCK_STREAM, 6, "", ("127.0.0.1", port))]


@dataclass
class Server:
    """A small server: what it heard, and where it is."""

    port: int = 0
    connections: int = 0
    heard: list[bytes] = field(default_factory=list)

    @property
    def origin(self):
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serve(answer, host="127.0.0.1", tls=None):
    """Run a server; `answer(server, head, writer)` says what it sends."""
    server, busy = Server(), set()

    async def on_connection(reader, writer):
        server.connections += 1
        busy.add(asyncio.current_task())
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            server.heard.append(head)
            await answer(server, head, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            busy.discard(asyncio.current_task())
            writer.close()

    listening = await asyncio.start_server(on_connection, host, 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in busy:
            task.cancel()
        await asyncio.gather(*busy, return_exceptions=True)


def page(body=b"hello", *headers, status="200 OK"):
    """Answer with a page; a length is said unless a header already does."""
    lines = [f"HTTP/1.1 {status}".encode(), b"connection: close", *headers]
    if not any(line.lower().startswith((b"content-length", b"transfer-encoding")) for line in headers):
        lines.append(b"content-length: %d" % len(body))

    async def answer(server, head, writer):
        writer.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)

    return answer


def redirect(location, status="302 Found"):
    """Answer with a redirect."""
    raw = location if isinstance(location, bytes) else location.encode("utf-8", "surrogatepass")
    return page(b"", b"location: " + raw, status=status)


@asynccontextmanager
async def trap():
    """Run the server that nobody may reach; every connection to this machine at its port ends there."""
    async with serve(page(), host="0.0.0.0") as server:
        yield server


@asynccontextmanager
async def fetching(**keywords):
    """Make a fetcher, and close it."""
    fetcher = GuardedFetcher(**keywords)
    try:
        yield fetcher
    finally:
        await fetcher.close()


async def reason_of(fetcher, url, **keywords):
    """Return why nothing came, or what came."""
    try:
        return await fetcher.fetch(url, **({"most_bytes": MOST, "within_s": 5.0} | keywords))
    except FetchFailed as error:
        return error.reason


async def fetch_from(answer, most_bytes=MOST, within_s=5.0):
    """Fetch from a server that is trusted."""
    async with serve(answer) as server, fetching() as fetcher:
        url = f"{server.origin}/a?secret=1"
        return await fetcher.fetch(url, most_bytes=most_bytes, trusted=server.origin, within_s=within_s)


def test_there_are_enough_vectors():
    """The vectors that differ are as many as were meant."""
    assert len({url for urls in URLS.values() for url in urls}) >= 550


@pytest.mark.parametrize("kind", URLS)
def test_nothing_private_is_reached(kind):
    """No way to write a private address leads to a connection: each is refused as such."""

    async def run():
        async with trap() as server, fetching(ports={server.port}, look_up=local_look_up) as fetcher:
            reasons = {
                url: await reason_of(fetcher, url.replace(PORT, str(server.port))) for url in URLS[kind]
            }
            return {url: reason for url, reason in reasons.items() if reason != "refused"}, server.connections

    assert asyncio.run(run()) == ({}, 0)


@pytest.mark.parametrize("kind", URLS)
def test_no_redirect_leads_to_anything_private(kind):
    """A server that may be reached cannot send the fetcher on to what may not."""

    async def run():
        todo = iter(URLS[kind])
        wrong = {}

        async def send_on(server, head, writer):
            await redirect(url.replace(PORT, str(caught.port)))(server, head, writer)

        async with trap() as caught, serve(send_on) as server:
            async with fetching(ports={caught.port}, look_up=local_look_up) as fetcher:
                for url in todo:
                    # These lead nowhere else: a relative path stays with the server, and no one may set a line end.
                    if url in {"", "/", "x"} or "\n" in url or url.startswith(("http:1", "http:/1", " ")):
                        continue
                    reason = await reason_of(fetcher, server.origin, trusted=server.origin)
                    # A lone surrogate is no header that the client takes.
                    if reason not in ({"refused", "unreachable"} if "\ud800" in url else {"refused"}):
                        wrong[url] = reason
            return wrong, caught.connections

    assert asyncio.run(run()) == ({}, 0)


@pytest.mark.parametrize("kind", URLS)
def test_nothing_private_is_told(kind):
    """Word is brought to no private address either."""

    async def run():
        async with trap() as server, fetching(ports={server.port}, look_up=local_look_up) as fetcher:
            said = {await fetcher.post(url.replace(PORT, str(server.port)), b"{}", {}) for url in URLS[kind]}
            return said, server.connections

    assert asyncio.run(run()) == ({None}, 0)


def test_the_trap_catches():
    """The trap counts those who get through, so that none means none."""

    async def run():
        async with trap() as server, fetching(trusted_hosts=[f"127.0.0.1:{server.port}"]) as fetcher:
            medium = await fetcher.fetch(f"{server.origin}/", most_bytes=MOST)
            return medium.data, await fetcher.post(f"{server.origin}/", b"{}", {}), server.connections > 0

    assert asyncio.run(run()) == (b"hello", 200, True)


def test_every_socket_is_checked_once_more(monkeypatch):
    """A private address is not connected to even where its text was taken for a public one."""

    async def run():
        async with trap() as server, fetching(ports={server.port}) as fetcher:
            return await reason_of(fetcher, f"{server.origin}/"), server.connections

    monkeypatch.setattr("llm_gate.transport.fetch._may_be_asked", lambda host: True)
    assert asyncio.run(run()) == ("refused", 0)


PUBLIC_4 = (AF_INET, SOCK_STREAM, 6, "", ("93.184.216.34", 443))
PUBLIC_6 = (AF_INET6, SOCK_STREAM, 6, "", ("2606:4700::1111", 443, 0, 0))
BAD = (
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "::1",
    "fe80::1%lo",
    "::ffff:93.184.216.34",
    "64:ff9b::7f00:1",
)


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_private_address_spoils_a_name(bad, place):
    """A name is refused when any of its addresses is private, wherever in the list it stands."""
    found = [PUBLIC_4, PUBLIC_6]
    found.insert(place, (AF_INET6 if ":" in bad else AF_INET, SOCK_STREAM, 6, "", (bad, 443)))

    async def look_up(host, port, family):
        return found

    with pytest.raises(OSError, match="spoiled"):
        asyncio.run(CheckedResolver(look_up).resolve("spoiled.example", 443))


def test_what_was_checked_is_what_is_connected_to():
    """A resolved name is handed on as its checked addresses, each with its own family."""

    async def look_up(host, port, family):
        return [PUBLIC_4, PUBLIC_6]

    found = asyncio.run(CheckedResolver(look_up).resolve("fine.example", 443))
    assert [(one["host"], one["port"], one["family"]) for one in found] == [
        ("93.184.216.34", 443, AF_INET),
        ("2606:4700::1111", 443, AF_INET6),
    ]


def test_a_name_is_looked_up_once_for_a_connection():
    """A name that means another place at the second look does not get one."""
    asked = []

    async def look_up(host, port, family):
        asked.append(host)
        # An address that everybody can reach at first; nothing answers there at port 1.
        return [PUBLIC_4] if len(asked) == 1 else await local_look_up(host, port, family)

    async def run():
        async with trap() as server, fetching(ports={server.port}, look_up=look_up) as fetcher:
            reason = await reason_of(fetcher, f"http://rebinding.example:{server.port}/", within_s=0.5)
            return reason in {"timeout", "unreachable"}, len(asked), server.connections

    assert asyncio.run(run()) == (True, 1, 0)


@pytest.mark.parametrize("found", [[], OSError("no such host")])
def test_an_unknown_name_is_unreachable(found):
    """A name without an address is not told apart from one whose server is away, save where it is refused."""

    async def look_up(host, port, family):
        if isinstance(found, OSError):
            raise found
        return found

    async def run():
        async with fetching(look_up=look_up) as fetcher:
            return await reason_of(fetcher, "http://nobody.example/")

    assert asyncio.run(run()) == "unreachable"


@pytest.mark.parametrize("port", [1, 22, 25, 81, 3306, 5432, 6379, 8000, 9200, 11211, 27017, 65535])
def test_other_ports_are_refused(port):
    """Only the ports of the web are asked, whatever the host."""

    async def run():
        async with fetching(look_up=local_look_up) as fetcher:
            return [
                await reason_of(fetcher, f"http://{host}:{port}/") for host in ("8.8.8.8", "fine.example")
            ]

    assert asyncio.run(run()) == ["refused", "refused"]


def test_a_medium_is_fetched_with_nothing_of_ours():
    """What is asked for comes with its type; no cookie, credential or packing is offered, and no proxy is asked."""

    async def run():
        headers = (b"content-type: Image/PNG; a=b", b"set-cookie: a=b; path=/")
        async with serve(page(b"\x89PNG", *headers)) as server, fetching() as fetcher:
            for _ in range(2):
                medium = await fetcher.fetch(
                    f"{server.origin}/a?b=c%2Fd", most_bytes=4, trusted=server.origin
                )
            return medium, server.heard

    medium, heard = asyncio.run(run())
    assert (medium.data, medium.type) == (b"\x89PNG", "image/png")
    for head in heard:
        assert head.startswith((b"GET /a?b=c%2Fd HTTP/1.1\r\n", b"GET /a?b=c/d HTTP/1.1\r\n"))
        names = {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:] if line}
        assert names == {b"host", b"user-agent", b"accept", b"accept-encoding"}
        assert b"accept-encoding: identity" in head.lower()


def test_the_environment_names_no_proxy(monkeypatch):
    """Proxies and credentials that the environment names take no part."""

    async def run():
        async with serve(page()) as server, trap() as proxy, fetching() as fetcher:
            for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            medium = await fetcher.fetch(server.origin, most_bytes=MOST, trusted=server.origin)
            return medium.data, proxy.connections

    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert asyncio.run(run()) == (b"hello", 0)


@pytest.mark.parametrize(
    "trusted",
    [
        "",
        "://",
        "https://127.0.0.1:{port}",
        "http://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost:{port}",
        "http://127.0.0.11:{port}",
        "http://[::1",
        "127.0.0.1:{port}",
    ],
)
def test_only_the_very_origin_is_trusted(trusted):
    """Trust is for one scheme, host and port, and for nothing like it."""

    async def run():
        async with trap() as server, fetching(ports={server.port}) as fetcher:
            reason = await reason_of(
                fetcher, f"{server.origin}/", trusted=trusted.replace(PORT, str(server.port))
            )
            return reason, server.connections

    assert asyncio.run(run()) == ("refused", 0)


@pytest.mark.parametrize("sign", ["\n", "\r", "\t", "\x00", "\x1f", "\x7f", "\\"])
def test_an_address_with_a_control_character_is_refused(sign):
    """What parsers read in different ways is refused anywhere in an address, be it a trusted one."""

    async def run():
        async with serve(page()) as server, fetching() as fetcher:
            url = f"{server.origin}/a{sign}b"
            return await reason_of(fetcher, url, trusted=server.origin), server.connections

    assert asyncio.run(run()) == ("refused", 0)


def test_trust_ends_with_the_fetch():
    """What one fetch was trusted to reach, the next may not."""

    async def run():
        async with serve(page()) as server, fetching(ports={server.port}) as fetcher:
            await fetcher.fetch(server.origin, most_bytes=MOST, trusted=server.origin)
            return await reason_of(fetcher, server.origin), server.connections

    assert asyncio.run(run()) == ("refused", 1)


@pytest.mark.parametrize("status", ["301 A", "302 B", "303 C", "307 D", "308 E"])
@pytest.mark.parametrize(
    "location", ["/end", "end", "?x=//a@b", "//127.0.0.1:{port}/end", "http://127.0.0.1:{port}/end"]
)
def test_redirects_are_followed(status, location):
    """A redirect to a place that may be reached is followed."""

    async def answer(server, head, writer):
        is_end = b" /start " not in head
        reply = page(b"end") if is_end else redirect(location.replace(PORT, str(server.port)), status)
        await reply(server, head, writer)

    async def run():
        async with serve(answer) as server, fetching() as fetcher:
            return await fetcher.fetch(f"{server.origin}/start", most_bytes=MOST, trusted=server.origin)

    assert asyncio.run(run()).data == b"end"


@pytest.mark.parametrize(("most", "connections"), [(0, 1), (1, 2), (3, 4)])
def test_redirects_end(most, connections):
    """A loop of redirects is left after so many."""

    async def run():
        async with serve(redirect("/again")) as server, fetching(max_redirects=most) as fetcher:
            return await reason_of(fetcher, server.origin, trusted=server.origin), len(server.heard)

    assert asyncio.run(run()) == ("refused", connections)


@pytest.mark.parametrize(
    "location",
    [
        b"",
        b"http://[::1",
        b"http://h:99999/",
        b"\xff\xfe",
        b"http://\xff/",
        b"http://@h/",
        b"mailto:a",
        b"\x00",
    ],
)
def test_a_redirect_to_nowhere_is_a_failure_like_others(location):
    """What cannot be followed raises nothing but the failure that is promised."""

    async def run():
        async with serve(redirect(location)) as server, fetching() as fetcher:
            return await reason_of(fetcher, server.origin, trusted=server.origin)

    assert asyncio.run(run()) in {"refused", "unreachable"}


def test_a_safe_connection_never_leads_to_an_open_one(monkeypatch):
    """From https nothing leads to http, be it the operator's own host."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")

    async def run():
        async with serve(page()) as plain, serve(redirect(f"{plain.origin}/"), tls=context) as safe:
            hosts = [f"localhost:{safe.port}", f"127.0.0.1:{safe.port}", f"127.0.0.1:{plain.port}"]
            async with fetching(trusted_hosts=hosts) as fetcher:
                trusting = ssl.create_default_context(cafile=str(TLS / "certificate.pem"))
                trusting.check_hostname = False
                # The certificate of the tests is not one that the world trusts.
                fetcher.__dict__["_open"] = fetcher._session(aiohttp.TCPConnector(ssl=trusting))
                reason = await reason_of(fetcher, f"https://127.0.0.1:{safe.port}/")
                return reason, len(safe.heard), plain.connections

    assert asyncio.run(run()) == ("refused", 1, 0)


def test_a_certificate_is_checked():
    """A server that cannot show who it is gets nothing, not even where it is trusted."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "certificate.pem", TLS / "key.pem")

    async def run():
        async with serve(page(), tls=context) as safe, fetching() as fetcher:
            origin = f"https://127.0.0.1:{safe.port}"
            return await reason_of(fetcher, origin, trusted=origin), len(safe.heard)

    assert asyncio.run(run()) == ("unreachable", 0)


async def endless(server, head, writer):
    """Send without end, and without saying how much."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        await writer.drain()


async def open_ended(server, head, writer):
    """Send without end until the connection is closed."""
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
    while True:
        writer.write(bytes(4096))
        await writer.drain()


async def endless_redirect(server, head, writer):
    """Send a redirect whose body never ends."""
    writer.write(b"HTTP/1.1 302 Found\r\nlocation: /x\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
        await writer.drain()


async def drip(server, head, writer):
    """Send one byte at a time, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def dripping_head(server, head, writer):
    """Send headers one at a time, for ever."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def silence(server, head, writer):
    """Send nothing at all."""
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (endless, "too_large"),
        (open_ended, "too_large"),
        (endless_redirect, "refused"),
        (page(b"x", b"content-length: 1073741824"), "too_large"),
        (page(b"x", b"content-length: 1001"), "too_large"),
        (page(b"x" * 1001), "too_large"),
        (page(b"x", b"content-length: 500"), "unreachable"),
        (page(b"x", b"content-length: -5"), "unreachable"),
        (page(b"x", b"content-length: many"), "unreachable"),
        (page(b"x" * 9, b"content-length: 4", b"content-length: 9"), "unreachable"),
        (page(b"5\r\nhello", b"transfer-encoding: chunked"), "unreachable"),
        (page(b""), "type"),
        (page(b"x", b"content-encoding: gzip"), "type"),
        (page(b"x", b"content-encoding: br"), "type"),
        (page(b"x", b"content-encoding: identity, gzip"), "type"),
        (page(b"x", b"content-encoding: identity", b"content-encoding: deflate"), "type"),
        *((page(b"x", status=f"{status} X"), "status") for status in (201, 206, 300, 400, 404, 429, 500)),
        (page(b"", status="204 None"), "status"),
        (page(b"", status="304 Same"), "status"),
        (page(b"x", status="nonsense"), "unreachable"),
        (page(b"x", b"a: " + b"x" * 100_000), "unreachable"),
    ],
)
def test_what_is_not_taken(answer, reason):
    """What is too large, packed, broken or no success is told apart, and never handed on."""
    with pytest.raises(FetchFailed) as caught:
        asyncio.run(fetch_from(answer))
    assert caught.value.reason == reason


@pytest.mark.parametrize("answer", [drip, dripping_head, silence])
def test_the_time_is_for_the_whole(answer):
    """A server that keeps a fetch alive byte by byte is left when the time is over."""

    async def run():
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(FetchFailed) as caught:
            await fetch_from(answer, within_s=0.4)
        return caught.value.reason, loop.time() - begun

    reason, took = asyncio.run(run())
    assert reason == "timeout"
    assert 0.3 < took < 3


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        (page(b"x" * 1000), b"x" * 1000),
        (page(b"x", b"content-encoding: identity"), b"x"),
        (page(b"4\r\nfour\r\n0\r\n\r\n", b"transfer-encoding: chunked"), b"four"),
    ],
)
def test_what_is_taken(answer, data):
    """What fits is handed on whole."""
    assert asyncio.run(fetch_from(answer)).data == data


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://user:hunter2@127.0.0.1:{port}/path-secret?key=secret#secret", "refused"),
        ("http://127.0.0.1:{port}/path-secret?key=secret", "status"),
        ("http://10.0.0.1/path-secret?key=secret", "refused"),
        ("http://fine.example:22/path-secret?key=secret", "refused"),
        ("http://fine.example/path-secret?key=secret", "refused"),
        ("http://[secret", "refused"),
    ],
)
def test_a_failure_repeats_no_secret(url, reason):
    """A failure names scheme and host; credentials, path and query stay unsaid, also in what caused it."""

    async def run():
        async with serve(page(b"", status="404 Gone")) as server, fetching(look_up=local_look_up) as fetcher:
            with pytest.raises(FetchFailed) as caught:
                await fetcher.fetch(
                    url.replace(PORT, str(server.port)), most_bytes=MOST, trusted=server.origin
                )
            return caught.value

    error = asyncio.run(run())
    assert error.reason == reason
    assert error.code == "fetch_failed"
    assert "secret" not in str(error)
    assert "hunter2" not in str(error)
    assert error.__cause__ is None


@pytest.mark.parametrize("sent", [6, 5_000])
def test_more_than_was_said_is_not_read(sent):
    """A server that sends more than it said gets no more taken than it said, if anything at all."""
    try:
        data = asyncio.run(fetch_from(page(b"x" * sent, b"content-length: 5"))).data
    except FetchFailed as error:
        data = error.reason
    assert data in {b"xxxxx", "unreachable"}


def test_a_port_where_nobody_listens_is_unreachable():
    """A connection that is refused is told as such."""

    async def run():
        async with serve(page()) as server:
            origin = server.origin
        async with fetching() as fetcher:
            return await reason_of(fetcher, origin, trusted=origin)

    assert asyncio.run(run()) == "unreachable"


@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]"])
def test_hosts_are_trusted_in_any_spelling(host):
    """An operator may write an IPv6 host as addresses have it; a host beside it stays refused."""

    async def run():
        async with fetching(trusted_hosts=[f"{host}:9"]) as fetcher:
            return await reason_of(fetcher, "http://[::1]:9/"), await reason_of(fetcher, "http://[::2]:9/")

    assert asyncio.run(run()) == ("unreachable", "refused")


def test_a_fetcher_that_fetched_nothing_is_closed():
    """Closing needs no connection to have been made."""
    asyncio.run(GuardedFetcher().close())
