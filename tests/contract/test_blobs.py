"""What is kept of media: in a folder, in a bucket over a real socket, and the links that name it."""

import asyncio
import os
import re
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from llm_gate.domain.blobs import Links
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.domain.media import Medium
from llm_gate.storage import blobs as module
from llm_gate.storage import s3_blobs as s3_module
from llm_gate.storage.blobs import FolderBlobs
from llm_gate.storage.s3_blobs import S3Blobs

NOW_MS = 1_760_000_000_000
KEPT_S = 60.0
END_MS = NOW_MS + 60_000
PICTURE = Medium(data=b"\x89PNG\r\n\x1a\n\n{}\x00", type="image/png")
TRAVERSALS = (
    # As long as an id is, and past the folder to what lies beside it.
    "./" * 7 + "..-" + "./" * 13 + "secret",
    *("", ".", "..", "/", "../..", "../../etc/passwd", "/etc/passwd", "a", "-", "a-b", "%2e%2e%2f", "\x00"),
    *("0" * 16 + "-" + "../" * 10, "../" + "0" * 13 + "-" + "0" * 32, "0" * 16 + "/" + "0" * 32, "0" * 49),
    *(
        "0" * 16 + "-" + "0" * 31,
        "0" * 16 + "-" + "0" * 33,
        "0" * 15 + "-" + "0" * 32,
        "0" * 17 + "-" + "0" * 32,
    ),
    *("0" * 16 + "-" + "0" * 32 + "\n", "\n" + "0" * 16 + "-" + "0" * 32, "A" * 16 + "-" + "0" * 32),
    *(
        "0" * 16 + "-" + "g" * 32,
        "0" * 16 + "-" + "\u0660" * 32,
        "0" * 16 + "-" + "." + "0" * 31,
        "." * 16 + "-" + "." * 32,
    ),
    *("0" * 16 + "--" + "0" * 31, "0" * 16 + "-" + "0" * 30 + "\\x", "0" * 16 + "\x00" + "0" * 32, "\ud800"),
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "data" / "blobs"


@pytest.fixture
def blobs(folder):
    return FolderBlobs(folder, retention_s=KEPT_S)


def keep(blobs, tenant="t1", medium=PICTURE, at_ms=NOW_MS):
    return asyncio.run(blobs.keep(tenant, medium, at_ms=at_ms))


def read(blobs, blob_id, at_ms=NOW_MS):
    return asyncio.run(blobs.read(blob_id, at_ms=at_ms))


def files_in(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("data", [b"", b"x", b"\n", b"\n\n{}\n", bytes(range(256)) * 4_000, PICTURE.data])
@pytest.mark.parametrize("kind", ["image/png", "", 'a"b\\\n; c=é', "x/" + "y" * 8_000])
def test_what_is_kept_is_read_again(blobs, folder, data, kind):
    """A medium comes back as it was, with what is said of it, also from another process."""
    blob = keep(blobs, "tenant ü/../x", Medium(data=data, type=kind))
    assert (blob.tenant, blob.type, blob.size) == ("tenant ü/../x", kind, len(data))
    assert (blob.made_ms, blob.expires_ms) == (NOW_MS, END_MS)
    assert read(FolderBlobs(folder, retention_s=1.0), blob.id) == (blob, data)


def test_only_the_owner_of_the_process_can_look(blobs, folder):
    """Folders are for their owner alone, and so are files, whatever the process allows by default."""
    before = os.umask(0)
    try:
        keep(blobs)
    finally:
        os.umask(before)
    (path,) = files_in(folder)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path.parent, folder)] == [0o700, 0o700]


def test_ids_cannot_be_guessed(blobs):
    """Ids differ, name the tenant's folder without the tenant's name, and have a form that is checked."""
    ids = {keep(blobs, tenant).id for tenant in ("t1", "t2") for _ in range(50)}
    assert len(ids) == 100
    assert len({one.partition("-")[0] for one in ids}) == 2
    assert all(module.ID.fullmatch(one) for one in ids)


@pytest.mark.parametrize("blob_id", TRAVERSALS)
def test_an_id_leads_nowhere_else(blobs, folder, blob_id):
    """What is no id is not looked for, and nothing outside is read or removed."""
    keep(blobs)
    outside = folder.parent / "secret"
    outside.write_bytes(b'{"tenant":"t1","type":"a/b","size":1,"made_ms":0,"expires_ms":9999999999999}\nx')
    before = files_in(folder.parent)
    assert read(blobs, blob_id) is None
    assert asyncio.run(blobs.remove("t1", blob_id)) is False
    assert files_in(folder.parent) == before


@pytest.mark.parametrize(
    ("at_ms", "is_there"), [(NOW_MS, True), (END_MS - 1, True), (END_MS, False), (END_MS + 1, False)]
)
def test_what_is_past_its_end_is_gone(blobs, at_ms, is_there):
    """A medium is there until its end, and not at it, swept or not."""
    blob = keep(blobs)
    assert (read(blobs, blob.id, at_ms) is not None) is is_there
    assert asyncio.run(blobs.sweep(at_ms)) == (0 if is_there else 1)
    assert (read(blobs, blob.id) is not None) is is_there


def test_a_tenant_removes_only_what_is_its_own(blobs):
    """Nobody removes what another tenant keeps, and nothing is removed twice."""
    mine, other = keep(blobs, "t1"), keep(blobs, "t2")
    assert asyncio.run(blobs.remove("t2", mine.id)) is False
    assert asyncio.run(blobs.remove("", mine.id)) is False
    assert read(blobs, mine.id) is not None
    assert asyncio.run(blobs.remove("t1", mine.id)) is True
    assert asyncio.run(blobs.remove("t1", mine.id)) is False
    assert read(blobs, mine.id) is None
    assert read(blobs, other.id) is not None


def test_an_id_of_one_tenant_under_the_folder_of_another_is_none(blobs):
    """The two parts of an id belong together."""
    mine, other = keep(blobs, "t1"), keep(blobs, "t2")
    mixed = f"{other.id.partition('-')[0]}-{mine.id.partition('-')[2]}"
    assert read(blobs, mixed) is None
    assert asyncio.run(blobs.remove("t2", mixed)) is False


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failure_leaves_nothing(blobs, folder, monkeypatch, step):
    """What cannot be written whole is not there at all, not even as a draft."""

    def fail(*_args):
        raise OSError("the disk is full")

    monkeypatch.setattr(*((os, "fsync") if step == "fsync" else (module.Path, "rename")), fail)
    with pytest.raises(OSError, match="the disk is full"):
        keep(blobs)
    assert files_in(folder) == []


def test_a_medium_is_on_disk_before_it_has_its_name(blobs, folder, monkeypatch):
    """Nothing stands under its final name before all of it was flushed; the folder is flushed after."""
    seen = []
    flush = os.fsync

    def look(descriptor):
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        seen.append((is_folder, [path.name.startswith(".") for path in files_in(folder)]))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    keep(blobs)
    assert seen == [(False, [True]), (True, [False])]


@pytest.mark.parametrize(
    "torn",
    [
        lambda raw: b"",
        lambda raw: raw[:10],
        lambda raw: raw[:-1],
        lambda raw: raw + b"x",
        lambda raw: raw[: raw.index(b"\n") + 1],
        lambda raw: raw.replace(b"\n", b" ", 1),
        lambda raw: b"null\n" + raw,
        lambda raw: b"\xff" * 100_000,
        lambda raw: b"x" * 1_000_000,
    ],
)
def test_a_torn_file_is_no_medium(blobs, folder, torn):
    """A file that was cut off or overwritten is not handed out as if it were whole."""
    blob = keep(blobs)
    (path,) = files_in(folder)
    path.write_bytes(torn(path.read_bytes()))
    assert read(blobs, blob.id) is None


def test_a_draft_is_never_read(blobs, folder):
    """What is still being written has no id, and is swept only when its writer must be gone."""
    blob = keep(blobs)
    (path,) = files_in(folder)
    path.rename(path.with_name(f".{path.name}"))
    now_ms = round(time.time() * 1000)
    assert read(blobs, blob.id) is None
    assert asyncio.run(blobs.sweep(now_ms)) == 0
    assert asyncio.run(blobs.sweep(now_ms + 7_200_000)) == 1
    assert files_in(folder) == []


def test_a_sweep_takes_the_expired_alone(blobs, folder):
    """A sweep removes what is past its end, of every tenant, and says how many that were."""
    old = [keep(blobs, tenant, at_ms=NOW_MS - 60_000) for tenant in ("t1", "t2", "t3")]
    new = [keep(blobs, tenant) for tenant in ("t1", "t4")]
    assert asyncio.run(blobs.sweep(NOW_MS)) == len(old)
    assert asyncio.run(blobs.sweep(NOW_MS)) == 0
    assert [read(blobs, one.id, NOW_MS - 60_000) for one in old] == [None] * 3
    assert all(read(blobs, one.id) for one in new)


def test_a_sweep_has_an_end(blobs, folder, monkeypatch):
    """A sweep removes so many files, and the next one goes on."""
    monkeypatch.setattr(module, "MOST_SWEPT", 4)
    for _ in range(10):
        keep(blobs)
    assert [asyncio.run(blobs.sweep(END_MS)) for _ in range(4)] == [4, 4, 2, 0]


def test_a_sweep_leaves_what_is_not_ours(blobs, folder, tmp_path):
    """Files of others, and what links lead to, stay as they are."""
    blob = keep(blobs)
    place = folder / blob.id.partition("-")[0]
    elsewhere = tmp_path / "elsewhere"
    (folder / "photos").mkdir()
    elsewhere.mkdir()
    others = [
        folder / "photos" / "a.jpg",
        folder / "photos" / ".hidden",
        place / "note.txt",
        folder / "b.txt",
    ]
    others += [elsewhere / ("0" * 32), folder / "photos" / ("0" * 32)]
    for path in others:
        path.write_bytes(b"a photo")
        os.utime(path, (0, 0))
    (folder / ("f" * 16)).symlink_to(elsewhere)
    (place / ("0" * 32)).mkdir()
    assert asyncio.run(blobs.sweep(END_MS)) == 1
    assert all(path.read_bytes() == b"a photo" for path in others)


def test_a_sweep_of_nothing(blobs):
    """Where nothing was ever kept, there is nothing to sweep."""
    assert asyncio.run(blobs.sweep(END_MS)) == 0
    asyncio.run(blobs.close())


def test_many_at_once(blobs, folder):
    """Media that are kept, read and swept at the same time do not meet."""

    def work(number):
        medium = Medium(data=bytes([number]) * 10_000, type="a/b")
        blob = keep(blobs, f"t{number % 3}", medium)
        asyncio.run(blobs.sweep(NOW_MS))
        found = read(blobs, blob.id)
        return found is not None and found[1] == medium.data

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(64)))
    assert len(files_in(folder)) == 64


KEY = bytes(range(32))
BLOB_ID = "0" * 16 + "-" + "a" * 32


def test_a_link_works_until_its_end():
    """A signature is text for an address, and valid before the end alone."""
    links = Links(KEY)
    signature = links.sign(BLOB_ID, END_MS)
    assert set(signature) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(signature) == 43
    assert links.is_valid(BLOB_ID, END_MS, signature, END_MS - 1)
    assert not links.is_valid(BLOB_ID, END_MS, signature, END_MS)
    assert Links(KEY).is_valid(BLOB_ID, END_MS, signature, NOW_MS)
    assert not Links(KEY[::-1]).is_valid(BLOB_ID, END_MS, signature, NOW_MS)


@pytest.mark.parametrize("place", range(43))
def test_no_letter_of_a_signature_can_be_changed(place):
    """One other letter anywhere spoils a signature, the last one with its spare bits too."""
    links = Links(KEY)
    signature = links.sign(BLOB_ID, END_MS)
    others = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ ") - {signature[place]}
    changed = [signature[:place] + other + signature[place + 1 :] for other in others]
    assert [one for one in changed if links.is_valid(BLOB_ID, END_MS, one, NOW_MS)] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda s: "",
        lambda s: s[:-1],
        lambda s: s + "=",
        lambda s: s + "A",
        lambda s: f" {s}",
        lambda s: "\ud800" + s[1:],
        lambda s: "é" + s[1:],
    ],
)
def test_a_spoiled_signature_is_none(spoil):
    """A signature that is cut, grown or no text is invalid, and raises nothing."""
    links = Links(KEY)
    assert not links.is_valid(BLOB_ID, END_MS, spoil(links.sign(BLOB_ID, END_MS)), NOW_MS)


@pytest.mark.parametrize(
    ("blob_id", "expires_ms"),
    [
        (BLOB_ID, END_MS + 1),
        (BLOB_ID, END_MS * 10),
        (BLOB_ID[:-1] + "b", END_MS),
        (f"{BLOB_ID}\n", END_MS),
        (f"{BLOB_ID}\n{str(END_MS)[:1]}", int(str(END_MS)[1:])),
        ("", END_MS),
        ("\ud800", END_MS),
    ],
)
def test_a_signature_is_for_one_thing(blob_id, expires_ms):
    """A signature says nothing of another medium, or of another end."""
    links = Links(KEY)
    assert not links.is_valid(blob_id, expires_ms, links.sign(BLOB_ID, END_MS), 0)


class Bucket(ThreadingHTTPServer):
    """A store that speaks as much S3 as is needed: objects by path, written whole; `refuses` has it refuse."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), BucketRequest)
        self.objects = {}
        self.made_ms = NOW_MS
        self.refuses = False


class BucketRequest(BaseHTTPRequestHandler):
    """One request to the bucket `media`."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_args):
        """Say nothing."""

    def reply(self, status, body=b"", **headers):
        """Answer."""
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        """Read what was sent."""
        return self.rfile.read(int(self.headers.get("content-length", "0")))

    def key(self):
        """Return the path of an object."""
        return unquote(urlsplit(self.path).path).removeprefix("/media/")

    def stamp(self, layout="%a, %d %b %Y %H:%M:%S GMT"):
        """Write when objects were made."""
        return datetime.fromtimestamp(self.server.made_ms / 1000, UTC).strftime(layout)

    def is_refused(self):
        """Refuse, where that is wanted."""
        if self.server.refuses:
            self.reply(403, b"<Error><Code>AccessDenied</Code></Error>")
        return self.server.refuses

    def do_PUT(self):
        data = self.body()
        if not self.is_refused():
            self.server.objects[self.key()] = data
            self.reply(200, etag='"a"')

    def do_GET(self):
        if self.is_refused():
            return
        if "list-type" in self.path:
            self.list()
            return
        data = self.server.objects.get(self.key())
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        if data is None:
            self.reply(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif wanted is None:
            self.reply(200, data, etag='"a"', last_modified=self.stamp())
        else:
            first, end = int(wanted[1]), min(int(wanted[2]) + 1, len(data))
            where = f"bytes {first}-{end - 1}/{len(data)}"
            self.reply(206, data[first:end], etag='"a"', last_modified=self.stamp(), content_range=where)

    def list(self):
        """List every object below the prefix."""
        prefix = parse_qs(urlsplit(self.path).query).get("prefix", [""])[0]
        made = self.stamp("%Y-%m-%dT%H:%M:%S.000Z")
        found = "".join(
            f'<Contents><Key>{key}</Key><LastModified>{made}</LastModified><ETag>"a"</ETag>'
            f"<Size>{len(data)}</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key, data in sorted(self.server.objects.items())
            if key.startswith(prefix)
        )
        text = (
            f"<ListBucketResult><Name>media</Name><IsTruncated>false</IsTruncated>{found}</ListBucketResult>"
        )
        self.reply(200, text.encode(), content_type="application/xml")

    def do_DELETE(self):
        if not self.is_refused():
            self.server.objects.pop(self.key(), None)
            self.reply(204)

    def do_POST(self):
        sent = self.body().decode()
        if not self.is_refused():
            keys = re.findall("<Key>(.*?)</Key>", sent)
            for key in keys:
                self.server.objects.pop(key, None)
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self.reply(200, f"<DeleteResult>{gone}</DeleteResult>".encode(), content_type="application/xml")


@pytest.fixture
def bucket(monkeypatch):
    """Run an empty bucket, which the environment names."""
    server = Bucket()
    said = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "us-east-1",
    }
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def far(bucket):
    return S3Blobs("s3://media/some/place", retention_s=KEPT_S)


@pytest.mark.parametrize("data", [b"", b"\n", bytes(range(256)) * 4_000, PICTURE.data])
@pytest.mark.parametrize("kind", ["image/png", "x/" + "y" * 8_000])
def test_a_bucket_returns_what_it_keeps(far, bucket, data, kind):
    """A medium comes back as it was, and lies in the bucket below the prefix."""
    blob = keep(far, medium=Medium(data=data, type=kind))
    assert (blob.type, blob.size, blob.expires_ms) == (kind, len(data), END_MS)
    assert list(bucket.objects) == [f"some/place/{blob.id.replace('-', '/')}"]
    assert read(far, blob.id, END_MS - 1) == (blob, data)
    assert read(far, blob.id, END_MS) is None


@pytest.mark.parametrize("blob_id", TRAVERSALS)
def test_an_id_leads_nowhere_else_in_a_bucket(far, bucket, blob_id):
    """What is no id is not asked for at all."""
    bucket.refuses = True
    assert read(far, blob_id) is None
    assert asyncio.run(far.remove("t1", blob_id)) is False


def test_a_tenant_removes_only_what_is_its_own_in_a_bucket(far, bucket):
    """Nobody removes what another tenant keeps, and nothing is removed twice."""
    mine, other = keep(far, "t1"), keep(far, "t2")
    tries = [("t2", mine.id), ("t1", mine.id), ("t1", mine.id)]
    assert [asyncio.run(far.remove(tenant, one)) for tenant, one in tries] == [False, True, False]
    assert read(far, mine.id) is None
    assert read(far, other.id) is not None


def test_a_torn_object_is_no_medium(far, bucket):
    """An object that is not as long as it says is not handed out."""
    blob = keep(far)
    (path,) = bucket.objects
    bucket.objects[path] = bucket.objects[path][:-1]
    assert read(far, blob.id) is None


def test_a_sweep_of_a_bucket_takes_the_expired_alone(far, bucket):
    """A sweep takes what is past its end, and leaves what others keep in the same bucket."""
    old = [keep(far, tenant) for tenant in ("t1", "t2")]
    others = {"backup.sql": b"x", "some/place/note.txt": b"x", f"some/place/{'0' * 16}/deep/{'0' * 32}": b"x"}
    bucket.objects.update(others)
    assert asyncio.run(far.sweep(END_MS - 1)) == 0
    assert asyncio.run(far.sweep(END_MS)) == len(old)
    assert bucket.objects == others


def test_a_sweep_of_a_bucket_has_an_end(far, bucket, monkeypatch):
    """A sweep removes so many objects, and the next one goes on."""
    monkeypatch.setattr(s3_module, "MOST_SWEPT", 2)
    for _ in range(3):
        keep(far)
    assert [asyncio.run(far.sweep(END_MS)) for _ in range(3)] == [2, 1, 0]


def test_what_was_promised_longer_is_kept_longer(far, bucket):
    """An object outlasts a retention that the operator has shortened since: its own end counts."""
    blob = keep(far)
    shorter = S3Blobs("s3://media/some/place", retention_s=1.0)
    assert asyncio.run(shorter.sweep(END_MS - 1)) == 0
    assert read(shorter, blob.id, END_MS - 1) is not None
    assert asyncio.run(shorter.sweep(END_MS)) == 1


def test_a_bucket_that_refuses_is_unavailable(far, bucket):
    """A bucket that refuses is told apart from one that has nothing, whatever was asked of it."""
    blob = keep(far)
    bucket.refuses = True
    for work in (
        lambda: far.keep("t1", PICTURE, at_ms=NOW_MS),
        lambda: far.read(blob.id, at_ms=NOW_MS),
        lambda: far.remove("t1", blob.id),
        lambda: far.sweep(END_MS),
    ):
        with pytest.raises(StoreUnavailable):
            asyncio.run(work())
    asyncio.run(far.close())
