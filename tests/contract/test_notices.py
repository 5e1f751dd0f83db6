"""Notices to the operator: once an hour over all processes, on both stores, and delivered signed."""

import asyncio
import hmac
import json
import threading
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

import pytest

from llm_gate.domain.conditions import NOTICE_EVERY_MS, Notice
from llm_gate.domain.errors import StoreUnavailable
from llm_gate.engine.alerts import AlertDelivery, Webhook
from llm_gate.engine.notices import MAX_QUEUED, OperatorNotices, notice_message
from llm_gate.storage.notices import KEPT_MS, StoredNotices
from llm_gate.transport.webhook import WebhookMessenger
from support.stores import KINDS, any_database

NOW_MS = 1_795_000_000_000
KEY = Notice(cause="vendor_key", subject="openai", message="the key was refused")


@pytest.fixture(params=KINDS)
def database(request, tmp_path):
    with any_database(request.param, tmp_path) as found:
        yield found


def stored(database):
    serial = count()
    return StoredNotices(database, new_id=lambda: f"n{next(serial)}-{id(serial)}")


def claimed(book, at_ms):
    return asyncio.run(book.claim(at_ms, lease_ms=1000, oldest_ms=0, limit=100))


def test_one_notice_an_hour_of_each_cause_and_subject(database):
    book = stored(database)

    async def work():
        return [
            await book.add(notice, NOW_MS + offset_ms)
            for notice, offset_ms in (
                (KEY, 0),
                (KEY, 1),
                (KEY, NOTICE_EVERY_MS - 1),
                (Notice(cause="vendor_credit", subject="openai", message="empty"), 2),
                (Notice(cause="vendor_key", subject="gemini", message="the key was refused"), 3),
                (KEY, NOTICE_EVERY_MS),
            )
        ]

    assert asyncio.run(work()) == [True, False, False, True, True, True]
    assert len(claimed(book, NOW_MS + 2 * NOTICE_EVERY_MS)) == 4


def test_many_processes_write_one(database):
    books = [stored(database) for _ in range(8)]

    async def work():
        return await asyncio.gather(*(book.add(KEY, NOW_MS) for book in books))

    assert sum(asyncio.run(work())) == 1
    assert len(claimed(books[0], NOW_MS)) == 1


def test_clocks_on_both_sides_of_a_full_hour_write_one(database):
    books = [stored(database) for _ in range(8)]
    edge_ms = (NOW_MS // NOTICE_EVERY_MS + 1) * NOTICE_EVERY_MS

    async def work(subject):
        notice = Notice(cause="cooldown", subject=subject, message="down")
        return sum(await asyncio.gather(*(book.add(notice, edge_ms - n % 2) for n, book in enumerate(books))))

    assert [asyncio.run(work(f"p{number}")) for number in range(10)] == [1] * 10


def test_a_clock_that_was_far_ahead_silences_nobody(database):
    book = stored(database)

    async def work():
        offsets_ms = (999 * NOTICE_EVERY_MS, 0, 1, NOTICE_EVERY_MS, 2 * NOTICE_EVERY_MS)
        return [await book.add(KEY, NOW_MS + offset_ms) for offset_ms in offsets_ms]

    assert asyncio.run(work()) == [True, True, False, True, True]


def test_old_notices_are_deleted(database):
    book = stored(database)
    later_ms = NOW_MS + KEPT_MS + 1
    other = Notice(cause="cooldown", subject="p", message="down")
    assert [asyncio.run(book.add(*each)) for each in ((KEY, NOW_MS), (other, later_ms), (KEY, later_ms))] == [
        True,
        True,
        True,
    ]
    assert [line.created_ms for line in claimed(book, later_ms)] == [later_ms, later_ms]


@pytest.mark.parametrize("text", ["a\x00b", "a\ud800b", "".join(map(chr, range(0x4E00, 0x4E00 + 9000)))])
def test_whatever_callers_and_vendors_write_is_kept(database, text):
    """A text that the store would not take must not keep all that come after it from being written."""

    async def work():
        notices = OperatorNotices(book=stored(database), now_ms=lambda: NOW_MS)
        notices.start()
        notices.tell(Notice(cause="cooldown", subject=text, message=text))
        notices.tell(KEY)
        await notices.close()
        return notices.queued

    assert asyncio.run(work()) == 0
    assert len(claimed(stored(database), NOW_MS)) == 2


def test_whoever_claims_one_has_it_for_a_while(database):
    book, other = stored(database), stored(database)
    asyncio.run(book.add(KEY, NOW_MS))
    (line,) = claimed(book, NOW_MS)
    assert (line.cause, line.subject, line.message, line.tries) == ("vendor_key", "openai", KEY.message, 1)
    assert claimed(other, NOW_MS + 500) == ()
    assert len(claimed(other, NOW_MS + 1500)) == 1
    asyncio.run(other.note_sent(line.id, NOW_MS + 1600))
    assert claimed(book, NOW_MS + 9_000_000) == ()


class AwayBook:
    """A book that is away at first."""

    def __init__(self):
        self.kept = []
        self.is_away = True

    async def add(self, notice, at_ms):
        if self.is_away:
            raise StoreUnavailable("away")
        self.kept.append((notice, at_ms))
        return True


def test_telling_waits_for_nothing_and_loses_nothing(caplog):
    now_ms = [NOW_MS]

    async def work():
        book = AwayBook()
        notices = OperatorNotices(book=book, now_ms=lambda: now_ms[0])
        notices.start()
        for number in range(3):
            notices.tell(Notice(cause="cooldown", subject=f"p{number}", message="down"))
            notices.tell(Notice(cause="cooldown", subject=f"p{number}", message="down"))
        await asyncio.sleep(0.05)
        assert notices.queued == 3
        now_ms[0] += NOTICE_EVERY_MS
        notices.tell(Notice(cause="cooldown", subject="p0", message="down"))
        book.is_away = False
        await notices.close()
        return book.kept

    kept = asyncio.run(work())
    assert [notice.subject for notice, _ in kept] == ["p0", "p1", "p2", "p0"]
    assert len([record for record in caplog.records if record.name == "llm_gate.operator"]) == 4


def test_what_waits_is_bounded():
    async def work():
        notices = OperatorNotices(book=AwayBook(), now_ms=lambda: NOW_MS)
        for number in range(2 * MAX_QUEUED):
            notices.tell(Notice(cause="all_failed", subject=f"{number}", message="x"))
        return notices.queued

    assert asyncio.run(work()) == MAX_QUEUED


def test_a_notice_arrives_signed(database):
    got = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((dict(self.headers), body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args):
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    book = stored(database)

    async def work():
        messenger = WebhookMessenger()
        delivery = AlertDelivery(
            alerts=book, write=notice_message, messenger=messenger, webhook=None, now_ms=lambda: NOW_MS
        )
        await book.add(KEY, NOW_MS)
        webhook = Webhook(url=f"http://127.0.0.1:{server.server_address[1]}/hook", secret=b"secret")
        sent = await delivery.deliver(webhook), await delivery.deliver(webhook)
        await messenger.close()
        return sent

    try:
        assert asyncio.run(work()) == (1, 0)
    finally:
        server.shutdown()
        server.server_close()
    ((headers, body),) = got
    said = json.loads(body)
    assert (said["type"], said["cause"], said["subject"]) == ("operator", "vendor_key", "openai")
    assert said["id"] == headers["x-llm-gate-alert"]
    at, signature = headers["x-llm-gate-signature"].split(",")
    expected = hmac.digest(b"secret", at.removeprefix("t=").encode() + b"." + body, sha256).hex()
    assert signature == f"v1={expected}"
