"""Hostile media at a running gateway: addresses that lead inside, files without end, bodies torn anywhere."""

import io
import os
import socket
import struct
import threading
import time
import zlib
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from contract.test_fetch import PORT, URLS
from support.gateway import NATIVE_HEADERS, running_gateway
from support.pictures import form, in_base64, picture, recording
from support.web import call

ROOT = "/llm-gate/v1"
HIDDEN = "hidden-path?token=hidden-query"
MOST_GROWTH = 150 * 1024 * 1024
OPEN_PORTS = (8443, 8080, 80)
A_FIELD = 90
GOOD = in_base64(picture())


class Trap:
    """A server that nobody may reach: it counts who tries, at each of its ports."""

    def __init__(self, stack):
        self.connections = 0
        # The ports that may be asked at all, as far as they are free here, and one that may not.
        self.ports = [port for port in (*OPEN_PORTS, 0) if self._listens(stack, port)]
        self.ports[-1] = self._last

    def _listens(self, stack, port):
        try:
            listening = socket.create_server(("127.0.0.1", port), backlog=64)
        except OSError:
            return False
        stack.callback(listening.close)
        self._last = listening.getsockname()[1]
        threading.Thread(target=self._count, args=(listening,), daemon=True).start()
        return True

    def _count(self, listening):
        with suppress(OSError):
            while True:
                taken, _ = listening.accept()
                self.connections += 1
                taken.close()


class Redirector:
    """A host that the operator trusts: it sends whoever asks on to what `leads_to` says, or shows a picture."""

    def __init__(self, stack):
        self.leads_to = {}
        self.asked = 0
        listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.host = f"127.0.0.1:{listening.getsockname()[1]}"
        stack.callback(listening.close)
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()

    def _serve(self, listening):
        with suppress(OSError):
            while True:
                taken, _ = listening.accept()
                with taken, suppress(OSError):
                    self._answer(taken)

    def _answer(self, taken):
        path = taken.recv(65_536).split(b" ")[1].decode()
        self.asked += 1
        status, location = self.leads_to.get(path, (200, ""))
        body = picture() if status == 200 else b""
        head = f"HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len(body)}\r\n"
        head += f"Location: {location}\r\n" if location else "Content-Type: image/png\r\n"
        taken.sendall(head.encode() + b"\r\n" + body)


@pytest.fixture(scope="module")
def stack():
    with ExitStack() as opened:
        yield opened


@pytest.fixture(scope="module")
def trap(stack):
    return Trap(stack)


@pytest.fixture(scope="module")
def redirector(stack):
    return Redirector(stack)


@pytest.fixture(scope="module")
def gateway(redirector):
    with running_gateway(toml=f'[media]\ntrusted_hosts = ["{redirector.host}"]\n') as running:
        yield running


def edit(**changed):
    """Return a native request to change a picture."""
    return {"images": [GOOD], "prompt": {"message": "x"}} | changed


def film(**parameter):
    """Return a native request for a film."""
    return {"prompt": {"message": "x", "parameter": {"duration": 1} | parameter}}


def open_edit(**changed):
    """Return a request to change a picture in the OpenAI format."""
    return {"model": "sandbox/image-edit", "prompt": "x"} | changed


def open_film(**changed):
    """Return a request for a film in the OpenAI format."""
    return {"model": "sandbox/video", "prompt": "x", "seconds": "1"} | changed


# Every field that can hold an address: path, the request that holds it, and how the refusal calls the field.
FIELDS = {
    "images[0]": (f"{ROOT}/images/edits", lambda url: edit(images=[url]), "image"),
    "images[1]": (f"{ROOT}/images/edits", lambda url: edit(images=[GOOD, url]), "image"),
    "mask": (f"{ROOT}/images/edits", lambda url: edit(mask=url), "mask"),
    "baseImage": (f"{ROOT}/images/face-swaps", lambda url: {"baseImage": url, "faceImage": GOOD}, "image"),
    "faceImage": (f"{ROOT}/images/face-swaps", lambda url: {"baseImage": GOOD, "faceImage": url}, "face"),
    "prompt.parameter.image": (f"{ROOT}/videos", lambda url: film(image=url), "image"),
    "prompt.parameter.audio": (f"{ROOT}/videos", lambda url: film(audio=url), "audio"),
    "audio": (f"{ROOT}/audio/transcriptions", lambda url: {"audio": url}, "audio"),
    "images.image_url": ("/v1/images/edits", lambda url: open_edit(images=[{"image_url": url}]), "image"),
    "images.url": ("/v1/images/edits", lambda url: open_edit(images=[{"url": url}]), "image"),
    "image.image_url": ("/v1/images/edits", lambda url: open_edit(image={"image_url": url}), "image"),
    "image.url": ("/v1/images/edits", lambda url: open_edit(image={"url": url}), "image"),
    "mask.image_url": (
        "/v1/images/edits",
        lambda url: open_edit(image={"image_url": f"data:image/png;base64,{GOOD}"}, mask={"image_url": url}),
        "mask",
    ),
    "input_reference": ("/v1/videos", lambda url: open_film(input_reference={"image_url": url}), "image"),
}
# Fields in which an address has no meaning: it is refused or left alone, and never followed.
UNREAD = {
    "image as text": ("/v1/images/edits", lambda url: open_edit(image=url)),
    "images as texts": ("/v1/images/edits", lambda url: open_edit(images=[url])),
    "input_reference as text": ("/v1/videos", lambda url: open_film(input_reference=url)),
    "extra of pictures": (
        f"{ROOT}/images/generations",
        lambda url: {"prompt": {"message": "x", "parameter": {"size": "16x16", "extra": {"image_url": url}}}},
    ),
    "extra of edits": (
        f"{ROOT}/images/edits",
        lambda url: edit(prompt={"message": "x", "parameter": {"extra": {"image": url, "images": [url]}}}),
    ),
    "extra of films": (f"{ROOT}/videos", lambda url: film(extra={"image": url, "webhook": url})),
    "extra of voices": (
        f"{ROOT}/audio/speech",
        lambda url: {"prompt": {"message": "x", "parameter": {"extra": {"voice_url": url}}}},
    ),
    "extra of transcripts": (
        f"{ROOT}/audio/transcriptions",
        lambda url: {"audio": in_base64(recording(0.1)), "parameter": {"extra": {"file_url": url}}},
    ),
    "prompt": (f"{ROOT}/images/generations", lambda url: {"prompt": {"message": url}}),
    "further fields of pictures": (
        "/v1/images/generations",
        lambda url: {
            "model": "sandbox/image",
            "prompt": "x",
            "size": "16x16",
            "image_url": url,
            "webhook": url,
        },
    ),
}
_TEXTS = [url for urls in URLS.values() for url in urls]
# What is no http(s) link at all is read as base64, and a lone half of a sign is no JSON text.
VECTORS = tuple(
    dict.fromkeys(url for url in _TEXTS if url.lower().strip().startswith("http") and "\ud800" not in url)
)


def longer(url):
    """Return an address with a path and a query that nobody may repeat."""
    return f"{url}{HIDDEN}" if url.endswith("/") and not url.endswith("//") and "///" not in url else url


def hostile(trap, offset, number):
    """Return some of the vectors, at the trap's ports, with a path and a query that nobody may repeat."""
    step = max(1, len(VECTORS) // number)
    return [
        longer(url).replace(PORT, str(trap.ports[index % len(trap.ports)]))
        for index, url in enumerate(VECTORS[offset % step :: step])
    ]


def ask(gateway, path, body, **headers):
    """Send a request as the path's surface wants it."""
    return call(gateway.url, path, body, {**(NATIVE_HEADERS if path.startswith(ROOT) else {}), **headers})


def error_of(answer, path):
    """Return the error of an answer in the documented shape of the surface: its message, and what it is about."""
    assert answer.headers["content-type"].startswith("application/json"), answer
    if path.startswith(ROOT):
        faults = answer.json["errorDetails"]
        assert faults
        assert all(fault["message"] and fault["statusCode"] for fault in faults), faults
        param = " ".join(fault.get("details", "") for fault in faults)
        return {"message": " ".join(fault["message"] for fault in faults), "param": param}
    error = answer.json["error"]
    assert error["message"]
    assert {"message", "type", "param", "code"} <= error.keys(), error
    return error


def memory(gateway):
    """Return the bytes of memory that the gateway holds."""
    pages = Path(f"/proc/{gateway.process.pid}/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def is_well(gateway):
    """Tell whether the gateway answers, and quickly."""
    started = time.monotonic()
    body = {"prompt": {"message": "x", "parameter": {"size": "16x16"}}}
    answer = ask(gateway, f"{ROOT}/images/generations", body)
    return answer.status == 200 and time.monotonic() - started < 2.0


def test_the_trap_and_the_trusted_host_work(gateway, redirector):
    """The trap counts whoever comes, and what the trusted host shows is taken: refusals mean something."""
    with ExitStack() as own:
        other = Trap(own)
        for port in other.ports:
            socket.create_connection(("127.0.0.1", port), 5).close()
        deadline = time.monotonic() + 5
        while other.connections < len(other.ports) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert other.connections == len(other.ports)
    answer = ask(gateway, f"{ROOT}/images/edits", edit(images=[f"http://{redirector.host}/a.png"]))
    assert answer.status == 200, answer.body
    assert redirector.asked > 0


def test_there_are_enough_vectors(trap):
    """The pairs of address and field are as many as were meant, and every vector takes part in one."""
    pairs = {(url, field) for number, field in enumerate(FIELDS) for url in hostile(trap, number, A_FIELD)}
    assert len(pairs) >= 500
    plain = {urlsplit(url).netloc for url, _ in pairs if "[" not in url}
    assert len(plain) >= 200


@pytest.mark.parametrize("field", FIELDS)
def test_no_address_leads_inside(gateway, trap, field):
    """Each is refused with a 4xx that names the field, tells nothing of the path, and no connection is made."""
    path, build, name = FIELDS[field]
    wrong = {}
    for url in hostile(trap, list(FIELDS).index(field), A_FIELD):
        answer = ask(gateway, path, build(url))
        if not 400 <= answer.status < 500:
            wrong[url] = answer.body
            continue
        error = error_of(answer, path)
        if name not in error["message"].lower() and name not in str(error.get("param")).lower():
            wrong[url] = error
        if b"hidden" in answer.body:
            wrong[url] = answer.body
    assert wrong == {}
    assert trap.connections == 0


@pytest.mark.parametrize("field", UNREAD)
def test_what_is_no_address_is_not_followed(gateway, trap, field):
    """Where an address has no meaning it is refused or left alone."""
    path, build = UNREAD[field]
    answers = {url: ask(gateway, path, build(url)) for url in hostile(trap, 0, 12)}
    assert {url: one.body for url, one in answers.items() if not 200 <= one.status < 500} == {}
    assert trap.connections == 0


@pytest.mark.parametrize("name", ["image", "mask", "input_reference", "file"])
def test_no_text_of_a_form_leads_inside(gateway, trap, name):
    """A form may name a picture by its address only where that is documented, and none that leads inside."""
    path, model = {
        "input_reference": ("/v1/videos", "sandbox/video"),
        "file": ("/v1/audio/transcriptions", "sandbox/transcription"),
    }.get(name, ("/v1/images/edits", "sandbox/image-edit"))
    for url in hostile(trap, 0, 25):
        written = url.encode("utf-8", "replace").decode()
        body, kind = form({"model": model, "prompt": "x", name: written})
        answer = call(gateway.url, path, body, {"content-type": kind})
        assert 400 <= answer.status < 500, answer.body
        error = error_of(answer, path)
        assert any(word in error["message"].lower() for word in (name, "image"))
        assert b"hidden" not in answer.body
    assert trap.connections == 0


def test_no_webhook_leads_inside(gateway, trap):
    """A film's end is told to no address inside, whatever was said when it was handed in."""
    jobs = []
    for url in hostile(trap, 1, 30):
        answer = ask(gateway, f"{ROOT}/videos", film() | {"webhook": url})
        assert answer.status in {202, 400}, answer.body
        if answer.status == 202:
            jobs.append(answer.json["id"])
        else:
            assert "webhook" in error_of(answer, f"{ROOT}/videos")["message"]
    deadline = time.monotonic() + 12
    while jobs and time.monotonic() < deadline:
        told = call(gateway.url, f"{ROOT}/jobs/{jobs[0]}", headers=NATIVE_HEADERS).json["status"]
        if told == "succeeded":
            jobs.pop(0)
        else:
            time.sleep(0.1)
    assert jobs == []
    time.sleep(0.5)
    assert trap.connections == 0


@pytest.mark.parametrize("field", FIELDS)
def test_no_redirect_leads_inside(gateway, trap, redirector, field):
    """A host that the operator trusts vouches for itself and for nobody that it sends the gateway on to."""
    path, build, name = FIELDS[field]
    asked = redirector.asked
    inside = [
        *hostile(trap, 3, 20),
        f"//127.0.0.1:{trap.ports[0]}/{HIDDEN}",
        "file:///etc/passwd",
        "gopher://x/",
    ]
    inside = [url for url in inside if url.isprintable() and url.isascii()]
    for index, url in enumerate(inside):
        status = (301, 302, 303, 307, 308)[index % 5]
        redirector.leads_to = {"/a": (status, f"http://{redirector.host}/b"), "/b": (status, url)}
        answer = ask(gateway, path, build(f"http://{redirector.host}/{'ab'[index % 2]}"))
        assert 400 <= answer.status < 500, (url, answer.body)
        assert name in error_of(answer, path)["message"].lower()
        assert b"hidden" not in answer.body
    assert trap.connections == 0
    assert redirector.asked >= asked + len(inside)


def test_redirects_in_a_ring_end(gateway, trap, redirector):
    """Who is sent round and round gives up."""
    redirector.leads_to = {"/r": (302, "/r")}
    answer = ask(gateway, f"{ROOT}/images/edits", edit(images=[f"http://{redirector.host}/r"]))
    assert answer.status == 400
    assert trap.connections == 0


def test_addresses_are_not_in_the_log(gateway, trap):
    """Neither path nor query of what was asked for stands in the gateway's log."""
    ask(gateway, f"{ROOT}/images/edits", edit(images=[f"http://127.0.0.1:{trap.ports[0]}/{HIDDEN}"]))
    time.sleep(0.2)
    assert [line for line in gateway.log if "hidden" in line] == []


def chunk(name, data):
    """Return a piece of a PNG."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, unfolded):
    """Return a PNG that says a size, and whose pixels unfold to so many zeros."""
    packed = zlib.compressobj(9)
    data = b"".join(packed.compress(bytes(1 << 20)) for _ in range(unfolded >> 20)) + packed.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bad_pictures():
    """Return pictures that are none, or that nobody should unfold."""
    noise = io.BytesIO()
    Image.effect_noise((300, 200), 90).save(noise, "JPEG")
    good, jpeg = picture(300, 200), noise.getvalue()
    yield "bomb, head only", png(30_000, 30_000, 0)
    yield "bomb, 64 MB", png(30_000, 30_000, 64 << 20)
    yield "64 MB where less is said to be enough", png(9_000, 9_000, 64 << 20)
    yield "text", b"hello world, I am a picture " * 20
    yield "text with a picture's head", b"\x89PNG\r\n\x1a\n" + b"hello" * 100
    yield "SVG", b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://127.0.0.1/"/></svg>'
    yield "sound", recording(0.1)
    yield "zeros", bytes(100_000)
    for tenth in (1, 3, 5, 7, 9):
        yield f"PNG cut at {tenth}/10", good[: len(good) * tenth // 10]
        yield f"JPEG cut at {tenth}/10", jpeg[: len(jpeg) * tenth // 10]
    pages, frames = io.BytesIO(), io.BytesIO()
    images = [Image.new("RGB", (8 + side, 8)) for side in range(2)]
    images[0].save(pages, "TIFF", save_all=True, append_images=images[1:])
    first, wide, second = pages.getvalue().rpartition(struct.pack("<HHI", 256, 4, 1))
    yield (
        "TIFF whose second page has no width",
        first + struct.pack("<HHI", 250, 4, 1) + second if wide else b"",
    )
    images = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    images[0].save(frames, "GIF", save_all=True, append_images=images[1:])
    whole_gif = frames.getvalue()
    yield "GIF cut after the head of its second frame", whole_gif[: whole_gif.index(b"\x2c", 60) + 10]


BAD = dict(bad_pictures())


def forms_with(data):
    """Return every request that brings a picture along as bytes: path, body, headers."""
    text = in_base64(data)
    native = (
        (f"{ROOT}/images/edits", edit(images=[text])),
        (f"{ROOT}/images/edits", edit(mask=f"data:image/png;base64,{text}")),
        (f"{ROOT}/images/face-swaps", {"baseImage": GOOD, "faceImage": text}),
        (f"{ROOT}/videos", film(image=text)),
        ("/v1/images/edits", open_edit(images=[{"image_url": f"data:image/png;base64,{text}"}])),
        ("/v1/videos", open_film(input_reference={"image_url": f"data:image/png;base64,{text}"})),
    )
    for path, body in native:
        yield path, body, {}
    file = ("a.png", "image/png", data)
    for path, name, model in (
        ("/v1/images/edits", "image", "sandbox/image-edit"),
        ("/v1/videos", "input_reference", "sandbox/video"),
    ):
        body, kind = form({"model": model, "prompt": "x", name: file})
        yield path, body, {"content-type": kind}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_no_picture_is_refused_everywhere(gateway, kind):
    """Every way to hand a picture in refuses what is none with a 400 about the picture, and memory stays bounded."""
    before = memory(gateway)
    for path, body, headers in forms_with(BAD[kind]):
        answer = ask(gateway, path, body, **headers)
        assert answer.status == 400, (path, answer.status, answer.body[:500])
        said = error_of(answer, path)["message"].lower()
        assert any(word in said for word in ("image", "mask", "face", "input_reference"))
    assert is_well(gateway)
    assert memory(gateway) - before < MOST_GROWTH


@pytest.mark.parametrize(
    "data", ["", "AA", "!!!!", "data:,", "data:image/png;base64,", "data:image/png,AAAA", "AAA\n="]
)
@pytest.mark.parametrize("field", FIELDS)
def test_what_is_no_base64_is_refused(gateway, field, data):
    """What is neither link, data URL nor base64, or is empty, is refused by the field that holds it."""
    path, build, name = FIELDS[field]
    answer = ask(gateway, path, build(data))
    assert answer.status == 400, answer.body
    assert name in error_of(answer, path)["message"].lower()


@pytest.mark.parametrize("tenth", range(10))
def test_cut_recordings_do_no_harm(gateway, tenth):
    """A recording that is cut is refused or written down; an empty one is refused."""
    sound = recording(0.5)
    cut = sound[: len(sound) * tenth // 10]
    body, kind = form({"model": "sandbox/transcription", "file": ("a.wav", "audio/wav", cut)})
    answers = (
        (
            f"{ROOT}/audio/transcriptions",
            ask(gateway, f"{ROOT}/audio/transcriptions", {"audio": in_base64(cut)}),
        ),
        (
            "/v1/audio/transcriptions",
            call(gateway.url, "/v1/audio/transcriptions", body, {"content-type": kind}),
        ),
    )
    for path, answer in answers:
        assert answer.status in ({400} if not cut else {200, 400}), answer.body
        if answer.status != 200:
            error_of(answer, path)


FORMS = {
    "/v1/images/edits": {
        "model": "sandbox/image-edit",
        "prompt": "x",
        "image": ("a.png", "image/png", picture()),
    },
    "/v1/videos": {
        "model": "sandbox/video",
        "prompt": "x",
        "input_reference": ("a.png", "image/png", picture()),
    },
    "/v1/audio/transcriptions": {
        "model": "sandbox/transcription",
        "file": ("a.wav", "audio/wav", recording(0.1)),
    },
}


@pytest.mark.parametrize("path", FORMS)
def test_torn_forms_are_refused(gateway, path):
    """A form that ends in its middle, has far too many fields, no end or a strange boundary is a typed 400."""
    body, kind = form(FORMS[path])
    many = {**FORMS[path], **{f"field{index}": "x" for index in range(500)}}
    torn = [(body[: len(body) * tenth // 10], kind) for tenth in range(10)]
    torn += [
        (body[:-4], kind),
        form(many),
        (body, "multipart/form-data"),
        (body, "multipart/form-data; boundary=x"),
    ]
    torn += [(body, f"multipart/form-data; boundary={'x' * 300}"), (body, 'multipart/form-data; boundary=""')]
    torn += [(b"hello", kind), (b"\r\n" * 5_000, kind)]
    for data, said in torn:
        answer = call(gateway.url, path, data, {"content-type": said})
        assert answer.status == 400, (said, answer.status, answer.body)
        error_of(answer, path)
    assert is_well(gateway)


@pytest.mark.parametrize("path", FORMS)
def test_one_field_a_hundred_thousand_times(gateway, path):
    """A field that is repeated without end is refused, and costs no more memory than the body itself many times."""
    before = memory(gateway)
    piece = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\nx\r\n'
    answer = call(
        gateway.url, path, piece * 20_000 + b"--b--\r\n", {"content-type": "multipart/form-data; boundary=b"}
    )
    assert answer.status == 400, answer.status
    error_of(answer, path)
    assert memory(gateway) - before < MOST_GROWTH


PATHS = [
    *FORMS,
    *(
        f"{ROOT}{each}"
        for each in ("/images/edits", "/images/face-swaps", "/videos", "/audio/transcriptions")
    ),
]


def opened(gateway):
    """Return a plain connection to the gateway."""
    parts = urlsplit(gateway.url)
    return socket.create_connection((parts.hostname, parts.port), 5)


def whole(connection):
    """Return an answer up to the end of its body, or of the connection."""
    got = b""
    while b'"error' not in got and (piece := connection.recv(65_536)):
        got += piece
    return got


def head_of(gateway, path, length, kind):
    """Return the head of a request."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {urlsplit(gateway.url).netloc}",
        f"Content-Type: {kind}",
        f"Content-Length: {length}",
    ]
    lines += [f"{name}: {value}" for name, value in NATIVE_HEADERS.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("length", [10**9, 2**63, 10**30])
@pytest.mark.parametrize("path", PATHS)
def test_a_huge_length_is_refused_unread(gateway, path, length):
    """A body that says it is far too long is refused at once, before any of it was sent."""
    kind = "application/json" if path.startswith(ROOT) else "multipart/form-data; boundary=x"
    started = time.monotonic()
    with opened(gateway) as connection:
        connection.sendall(head_of(gateway, path, length, kind))
        first = whole(connection)
    assert time.monotonic() - started < 2.0
    assert first.split(b" ")[1] in {b"413", b"400"}, first
    if length == 10**9:
        assert first.startswith(b"HTTP/1.1 413")
        assert b'"error' in first


def test_slow_bodies_hold_nobody_up(gateway):
    """Bodies that drip in sign by sign cost no memory and delay nobody; one that comes to its end is answered."""
    before = memory(gateway)
    with ExitStack() as open_:
        slow = [open_.enter_context(opened(gateway)) for _ in range(60)]
        for index, connection in enumerate(slow):
            path = PATHS[index % len(PATHS)]
            kind = "application/json" if path.startswith(ROOT) else "multipart/form-data; boundary=x"
            connection.sendall(head_of(gateway, path, 20, kind))
        for _ in range(20):
            for connection in slow:
                connection.sendall(b"x")
            assert is_well(gateway)
            time.sleep(0.05)
        for index, connection in enumerate(slow):
            first = whole(connection)
            assert first.split(b" ")[1] == b"400", (PATHS[index % len(PATHS)], first)
            assert b'"error' in first
    assert memory(gateway) - before < MOST_GROWTH


def test_animations_that_unfold_without_end_hold_nobody_up(gateway):
    """A GIF of 4 KB with many frames on a large canvas must not keep the gateway from measuring other pictures."""
    head = b"GIF89a" + struct.pack("<HH", 8_192, 8_192) + b"\x80\0\0\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\x09\x01\0\0\0\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x44\x01\0"
    bomb = edit(images=[in_base64(head + frame * 12 + b"\x3b")] * 2)
    before = memory(gateway)

    def send():
        with suppress(OSError):
            ask(gateway, f"{ROOT}/images/edits", bomb)

    sent = threading.Thread(target=send, daemon=True)
    sent.start()
    time.sleep(0.2)
    started, peak = time.monotonic(), 0
    assert is_well(gateway)
    took_s = time.monotonic() - started
    while sent.is_alive():
        peak = max(peak, memory(gateway))
        sent.join(0.05)
    assert took_s < 2.0
    assert peak - before < 2 * 4 * 8_192 * 8_192 + MOST_GROWTH


def test_the_gateway_went_on(gateway, trap):
    """After all of it the gateway runs, answers, reached nothing inside, and wrote nothing into its log but lines."""
    assert gateway.process.poll() is None
    assert is_well(gateway)
    assert trap.connections == 0
    assert [line for line in gateway.log if "Traceback" in line or "Warning" in line] == []
