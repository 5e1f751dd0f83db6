"""Batches over the real gateway on its defaults: the official client, the sandbox, and what is refused."""

import json
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from support.batches import (
    EMBEDDINGS,
    both,
    chat_line,
    chat_lines,
    client_of,
    embedding_lines,
    followed,
    hand_in,
    jsonl,
    marks,
)
from support.gateway import running_gateway
from support.issued import issuer_at
from support.web import call

FIELDS = {
    "id", "object", "endpoint", "model", "errors", "input_file_id", "completion_window", "status",
    "output_file_id", "error_file_id", "created_at", "in_progress_at", "expires_at", "finalizing_at",
    "completed_at", "failed_at", "expired_at", "cancelling_at", "cancelled_at", "request_counts", "usage",
    "metadata", "processed_by",
}  # fmt: skip


@pytest.fixture
def client(gateway):
    """Return the official client of a gateway with nothing but the sandbox."""
    with client_of(gateway.url) as made:
        yield made


def test_a_batch_of_chats_on_the_sandbox(client, gateway):
    """It can be tried without any key: created, followed, both files read, every line there once."""
    lines = [*chat_lines(6), chat_line("too-much", max_tokens=10**8)]
    batch = hand_in(client, lines, metadata={"night": "1"})
    assert set(call(gateway.url, f"/v1/batches/{batch.id}").json) == FIELDS
    batch = followed(client, batch)
    output, errors = both(client, batch)
    assert (batch.status, batch.metadata, batch.completion_window) == ("completed", {"night": "1"}, "24h")
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (7, 6, 1)
    assert marks(output) == [f"line-{number}" for number in range(6)]
    assert [set(line) for line in output] == [{"id", "custom_id", "response", "error"}] * 6
    assert "You said: Hello line-3" in output[3]["response"]["body"]["choices"][0]["message"]["content"]
    (refused,) = errors
    assert (refused["custom_id"], refused["response"]["status_code"]) == ("too-much", 400)
    assert refused["response"]["body"]["error"]["param"] == "max_tokens"
    tokens = [line["response"]["body"]["usage"]["total_tokens"] for line in output]
    assert batch.usage.total_tokens == sum(tokens)
    assert batch.in_progress_at <= batch.finalizing_at <= batch.completed_at
    assert batch.expires_at - batch.created_at == 86_400
    files = {file.id: file for file in client.files.list()}
    assert files[batch.output_file_id].purpose == "batch_output"
    assert files[batch.output_file_id].expires_at - files[batch.output_file_id].created_at == 30 * 86_400


def test_the_example_of_the_documents_runs(gateway, capsys):
    """What docs/batches.md shows can be run as it stands."""
    text = (Path(__file__).parents[2] / "docs" / "batches.md").read_text(encoding="utf-8")
    example = text.partition("```py\n")[2].partition("```")[0].replace("http://127.0.0.1:8080", gateway.url)
    names = {}
    exec(compile(example, "<example>", "exec"), names)  # noqa: S102 - our own documents
    names["client"].close()
    printed = capsys.readouterr().out
    assert [json.loads(line)["custom_id"] for line in printed.splitlines() if line] == [
        "question-0",
        "question-1",
        "question-2",
    ]


def test_a_batch_of_embeddings_on_the_sandbox(client):
    """Vectors come back line by line, as the endpoint itself would give them."""
    batch = followed(client, hand_in(client, embedding_lines(3), EMBEDDINGS))
    output, errors = both(client, batch)
    assert (batch.status, errors, marks(output)) == ("completed", [], ["text-0", "text-1", "text-2"])
    body = output[1]["response"]["body"]
    alone = client.embeddings.create(model="default", input=["Text 1", "another"], encoding_format="float")
    assert [each["embedding"] for each in body["data"]] == [each.embedding for each in alone.data]


@pytest.mark.parametrize(
    ("endpoint", "body", "kind"),
    [
        ("/v1/responses", {"model": "default", "input": "Hello"}, "response"),
        ("/v1/completions", {"model": "default", "prompt": "Hello"}, "text_completion"),
    ],
)
def test_the_other_endpoints(client, endpoint, body, kind):
    """Responses and completions are worked on here, each in its own shape."""
    line = {"custom_id": "one", "method": "POST", "url": endpoint, "body": body}
    output, errors = both(client, followed(client, hand_in(client, [line], endpoint)))
    assert (errors, output[0]["response"]["body"]["object"]) == ([], kind)


FAULTS = [
    ("this is no call", b'{"custom_id": "a"}\n', "invalid_json_line", 1, None),
    ("the body is no object", jsonl([chat_line("a") | {"body": []}]), "invalid_body", 1, "body"),
    ("twice the same mark", jsonl([chat_line("a"), chat_line("a")]), "duplicate_custom_id", 2, "custom_id"),
    ("an empty mark", jsonl([chat_line("")]), "invalid_custom_id", 1, "custom_id"),
    ("another method", jsonl([chat_line("a") | {"method": "GET"}]), "invalid_method", 1, "method"),
    ("another address", jsonl([chat_line("a") | {"url": EMBEDDINGS}]), "invalid_url", 1, "url"),
    ("a stream", jsonl([chat_line("a", stream=True)]), "stream_in_batch", 1, "body.stream"),
    ("a bad number", jsonl([chat_line("b"), chat_line("a", n=0)]), "invalid_body", 2, "body.n"),
    ("a model unheard of", jsonl([chat_line("a", "nobody/nothing")]), "model_not_found", 1, "body.model"),
]


@pytest.mark.parametrize(
    ("data", "code", "line", "param"), [each[1:] for each in FAULTS], ids=[f[0] for f in FAULTS]
)
def test_what_is_wrong_with_a_file(client, data, code, line, param):
    """A fault ends the batch before anything is spent, with its code, its line and its field."""
    batch = followed(client, hand_in(client, data))
    assert (batch.status, batch.output_file_id, batch.failed_at is not None) == ("failed", None, True)
    fault = batch.errors.data[0]
    assert (fault.code, fault.line, fault.param) == (code, line, param), fault
    assert fault.message


def test_a_file_of_many_faults(client):
    """A hundred faults are told, not all of them; lines that are good do not hide those that are not."""
    lines = [line | {"method": "PUT"} if number % 2 else line for number, line in enumerate(chat_lines(300))]
    batch = followed(client, hand_in(client, lines))
    assert [fault.line for fault in batch.errors.data] == list(range(2, 202, 2))


def test_too_many_lines(client):
    """More than 50,000 lines are one fault."""
    line = json.dumps(chat_line("a")).encode() + b"\n"
    batch = followed(client, hand_in(client, line * 50_001))
    assert [(fault.code, fault.line) for fault in batch.errors.data] == [("file_too_large", None)]


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"completion_window": "1h"}, "completion_window"),
        ({"endpoint": "/v1/images/generations"}, "endpoint"),
        ({"metadata": {"key": "x" * 513}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after"),
        ({"input_file_id": 5}, "input_file_id"),
        ({"wishes": 1}, "wishes"),
    ],
)
def test_a_request_that_is_not_right(gateway, client, changed, param):
    """What cannot be is a 400 that names the field, and no batch comes of it."""
    file = client.files.create(file=("calls.jsonl", jsonl(chat_lines(1))), purpose="batch")
    before = len(client.batches.list(limit=100).data)
    body = {
        "input_file_id": file.id,
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
        **changed,
    }
    answer = call(gateway.url, "/v1/batches", body)
    assert (answer.status, answer.json["error"]["param"]) == (400, param), answer.body
    assert len(client.batches.list(limit=100).data) == before


def test_files_that_are_none(client):
    """A file that is not there is a 404, one for something else a 400."""
    with pytest.raises(openai.NotFoundError, match="file-nothing"):
        client.batches.create(
            input_file_id="file-nothing", endpoint="/v1/chat/completions", completion_window="24h"
        )
    tuned = client.files.create(file=("a.jsonl", b'{"messages": []}\n'), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="fine-tune"):
        client.batches.create(
            input_file_id=tuned.id, endpoint="/v1/chat/completions", completion_window="24h"
        )


def test_output_files_end_as_asked(client):
    """The caller says when the files of a batch end."""
    ends = {"anchor": "created_at", "seconds": 7_200}
    batch = followed(client, hand_in(client, chat_lines(1), output_expires_after=ends))
    file = client.files.retrieve(batch.output_file_id)
    assert file.expires_at - file.created_at == 7_200


def test_batches_are_listed_in_pages(client):
    """The newest first, page by page, none left out and none twice."""
    made = [hand_in(client, chat_lines(1)).id for _ in range(3)]
    page = client.batches.list(limit=2)
    assert ([batch.id for batch in page.data], page.has_more) == ([made[2], made[1]], True)
    following = client.batches.list(limit=2, after=made[1])
    assert following.data[0].id == made[0]
    found = [batch.id for batch in client.batches.list(limit=2)]
    assert len(found) == len(set(found))
    assert found[:3] == made[::-1]


@pytest.fixture
def keyed(tmp_path):
    """Run a gateway that has keys: of two tenants, and one that allows a single model; return a client of each."""
    with issuer_at(tmp_path) as issuer:
        keys = [
            issuer.key("inference", tenant="one"),
            issuer.key("inference", tenant="two"),
            issuer.key("inference", allowed_models=("sandbox/chat",)),
        ]
        with running_gateway(arguments=("--data-dir", str(tmp_path))) as gateway, ExitStack() as stack:
            yield [stack.enter_context(client_of(gateway.url, key)) for key in keys]


def test_who_may_have_what(keyed):
    """Another tenant gets the same words as for what never was; a model that a key forbids is a fault of its line."""
    mine, other, narrow = keyed
    file = mine.files.create(file=("calls.jsonl", jsonl(chat_lines(2))), purpose="batch")
    batch = followed(mine, hand_in(mine, chat_lines(2)))
    for probe in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError) as refused:
            probe(batch.id)
        with pytest.raises(openai.NotFoundError) as never:
            probe("batch_never")
        assert refused.value.message.replace(batch.id, "batch_never") == never.value.message
    for file_id in (file.id, batch.output_file_id):
        with pytest.raises(openai.NotFoundError):
            other.files.content(file_id)
        with pytest.raises(openai.NotFoundError):
            other.batches.create(
                input_file_id=file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
    assert list(other.batches.list()) == []
    assert list(other.batches.list(after=batch.id)) == []
    assert [each.id for each in mine.batches.list()] == [batch.id]
    lines = [chat_line("a", "sandbox/chat"), chat_line("b", "sandbox/other-model")]
    ended = followed(narrow, hand_in(narrow, lines))
    assert (ended.status, [fault.line for fault in ended.errors.data]) == ("failed", [2])
    assert followed(narrow, hand_in(narrow, lines[:1])).status == "completed"
