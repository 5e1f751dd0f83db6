"""Files over the official client: kept until removed, checked line by line, and never another tenant's to see."""

import time

import openai
import pytest

from llm_gate.domain.files import MOST_FILE_BYTES
from support.gateway import running_gateway
from support.office import Desk
from support.web import call

LINES = b'{"a": 1}\n{"b": 2}\n'
BAD_FILES = [
    (b'{"a": 1}\n[2]\n', "line 2 is no JSON object"),
    (b'{"a": 1}\n{"b": 2\n', "line 2 is not valid JSON"),
    (b'{"a": 1}\n\n{"b": 2}\n', "line 2 is empty"),
    (b'"text"', "line 1 is no JSON object"),
    (b'{"a": "\xff"}\n', "line 1 is not valid JSON"),
    (b"\n\n", "line 1 is empty"),
]


def client_of(gateway, key="none"):
    """Return the official client of a caller."""
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def tenants():
    """Run a gateway with two tenants; return it, the operator's desk and a client of each."""
    with running_gateway() as gateway:
        desk = Desk(gateway)
        keys = {name: desk.key_for(name) for name in ("blue", "green")}
        clients = {name: client_of(gateway, key) for name, key in keys.items()}
        yield gateway, keys, clients
        for client in clients.values():
            client.close()


@pytest.fixture
def blue(tenants):
    """Return the client of the first tenant."""
    return tenants[2]["blue"]


@pytest.fixture
def green(tenants):
    """Return the client of the second tenant."""
    return tenants[2]["green"]


def test_a_file_comes_back_as_it_was(blue):
    """What was handed in is shown, listed, handed out byte for byte, and removed."""
    made = blue.files.create(file=("lines.jsonl", LINES), purpose="fine-tune")
    assert (made.object, made.bytes, made.filename, made.purpose) == ("file", 18, "lines.jsonl", "fine-tune")
    assert (made.status, made.expires_at) == ("processed", None)
    assert abs(made.created_at - time.time()) < 60
    assert blue.files.retrieve(made.id) == made
    assert blue.files.content(made.id).read() == LINES
    assert made.id in [each.id for each in blue.files.list()]
    gone = blue.files.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "file")
    for ask in (blue.files.retrieve, blue.files.content, blue.files.delete):
        with pytest.raises(openai.NotFoundError) as refused:
            ask(made.id)
        assert refused.value.code == "file_not_found"


def test_files_are_listed_page_by_page(green):
    """Pages follow each other in both orders, and hold one purpose where one is asked for."""
    made = [
        green.files.create(file=(f"{number}.jsonl", LINES), purpose=purpose).id
        for number, purpose in enumerate(["fine-tune", "batch", "fine-tune"])
    ]
    assert [each.id for each in green.files.list(limit=2)] == made[::-1]
    assert [each.id for each in green.files.list(order="asc", limit=1)] == made
    assert [each.id for each in green.files.list(purpose="batch")] == [made[1]]
    page = green.files.list(limit=2)
    assert (page.has_more, page.first_id, page.last_id) == (True, made[2], made[1])
    assert [each.id for each in green.files.list(after=made[1])] == [made[0]]
    for name in made:
        green.files.delete(name)


@pytest.mark.parametrize(("data", "reason"), BAD_FILES)
@pytest.mark.parametrize("purpose", ["fine-tune", "batch"])
def test_a_wrong_line_is_named(blue, purpose, data, reason):
    """A file whose lines are no JSON objects is refused with the number of the first, and not kept."""
    before = [each.id for each in blue.files.list()]
    with pytest.raises(openai.BadRequestError) as refused:
        blue.files.create(file=("lines.jsonl", data), purpose=purpose)
    assert reason in refused.value.message
    assert (refused.value.code, refused.value.param) == ("invalid_jsonl", "file")
    assert [each.id for each in blue.files.list()] == before


def test_other_purposes_take_any_bytes(blue):
    """A file for something else than lines is kept as it is."""
    made = blue.files.create(file=("picture.bin", b"\x00\xff"), purpose="vision")
    assert blue.files.content(made.id).read() == b"\x00\xff"
    blue.files.delete(made.id)


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"purpose": "nothing"}, "purpose"),
        ({"purpose": "fine-tune-results"}, "purpose"),
        (
            {"purpose": "batch", "expires_after": {"anchor": "created_at", "seconds": 3599}},
            "expires_after[seconds]",
        ),
        ({"purpose": "batch", "expires_after": {"anchor": "now", "seconds": 3600}}, "expires_after[anchor]"),
    ],
)
def test_wrong_words_are_refused(blue, said, param):
    """What cannot be carried out is refused by the name of its field."""
    with pytest.raises(openai.BadRequestError) as refused:
        blue.files.create(file=("lines.jsonl", LINES), **said)
    assert refused.value.param == param


def test_files_end_when_they_were_said_to(blue):
    """A file says when it ends; those of batches end by themselves after thirty days."""
    asked = {"anchor": "created_at", "seconds": 3_600}
    soon = blue.files.create(file=("a.jsonl", LINES), purpose="fine-tune", expires_after=asked)
    late = blue.files.create(file=("b.jsonl", LINES), purpose="batch")
    assert (soon.expires_at - soon.created_at, late.expires_at - late.created_at) == (3_600, 2_592_000)


def test_another_tenant_sees_no_file(tenants, blue, green):
    """By every route, another tenant's file and one that never was are answered alike."""
    gateway, keys, _ = tenants
    made = blue.files.create(file=("lines.jsonl", LINES), purpose="fine-tune")
    assert made.id not in [each.id for each in green.files.list()]
    assert green.files.list(after=made.id, order="asc").data == []
    headers = {"Authorization": f"Bearer {keys['green']}"}
    for method, rest in (("GET", ""), ("GET", "/content"), ("DELETE", "")):
        answers = [
            call(gateway.url, f"/v1/files/{name}{rest}", headers=headers, method=method)
            for name in (made.id, "file-none")
        ]
        bodies = [
            answer.body.replace(made.id.encode(), b"X").replace(b"file-none", b"X") for answer in answers
        ]
        assert [answer.status for answer in answers] == [404, 404]
        assert bodies[0] == bodies[1]
    assert blue.files.content(made.id).read() == LINES


def test_a_file_outlives_its_process(tmp_path):
    """Files are there after a restart, bytes and all."""
    arguments = ("--data-dir", str(tmp_path / "data"))
    with running_gateway(arguments=arguments) as gateway, client_of(gateway) as client:
        made = client.files.create(file=("lines.jsonl", LINES), purpose="fine-tune")
    with running_gateway(arguments=arguments) as gateway, client_of(gateway) as client:
        assert client.files.content(made.id).read() == LINES
        assert [each.id for each in client.files.list()] == [made.id]


def test_a_file_that_is_too_large_is_refused():
    """A body beyond the bound of the server is refused before it is read, and the bound of files stands above it."""
    toml = "[server]\nmax_body_bytes = 1000\n"
    with running_gateway(toml=toml) as gateway, client_of(gateway) as client:
        with pytest.raises(openai.APIStatusError) as refused:
            client.files.create(file=("lines.jsonl", LINES * 100), purpose="fine-tune")
        assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")
    assert MOST_FILE_BYTES == 536_870_912
