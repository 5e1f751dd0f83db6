"""Nothing reaches a provider around admission: shown by the source, and by every route of the real application."""

import ast
import asyncio
import inspect
import json
import logging
import textwrap
from functools import cache
from pathlib import Path

import pytest
from msgspec import structs

import llm_gate
from llm_gate.bootstrap import build, open_stores
from llm_gate.configuration import Source
from llm_gate.domain.ledger import Reserve, Settle
from llm_gate.engine.chatting import Chatting
from llm_gate.engine.counting import Counting
from llm_gate.engine.embedding import Embedding
from llm_gate.http.server import make_application
from support.gateway import NATIVE_HEADERS
from support.pictures import form, in_base64, picture, recording
from support.upstream import Answer, fake_upstream

ROOT = Path(llm_gate.__file__).parent
SENDING = {"chat", "chat_stream", "embed", "make", "speak", "submit"}
"""The ways of the gate to a provider."""

# Whoever asks a local server for its list of models sends nothing that could cost anything.
TRANSPORT_USERS = {
    # The files that came of a batch, which was booked when it was handed in.
    "engine/batch_vendor.py",
    "engine/chatting.py",
    "engine/exchanges.py",
    "engine/exchanging.py",
    "engine/presence.py",
    "engine/speaking.py",
}
ASKING = {
    "engine/chatting.py": (Chatting, {"answer", "stream"}),
    "engine/counting.py": (Counting, {"count"}),
    "engine/embedding.py": (Embedding, {"answer", "vector"}),
}
"""What the gate asks providers through, and the ways in."""

GATE_USERS = {
    "cli/chat.py",
    "cli/making.py",
    "cli/providers.py",
    "cli/video.py",
    "client/films.py",
    "client/gate.py",
    "client/media.py",
    "client/prompting.py",
    "client/search.py",
    "client/text.py",
    "engine/batch_calls.py",
    "engine/research.py",
    "http/anthropic.py",
    "http/fine_tuning.py",
    "http/native.py",
    "http/openai.py",
    "http/jobs.py",
    "http/media.py",
    "http/openai_audio.py",
    "http/openai_images.py",
    "http/openai_completions.py",
    "http/openai_fine_tuning.py",
    "http/openai_responses.py",
    "http/openai_videos.py",
    "http/search.py",
}


def dotted(node):
    """Return the names of an expression like `self.gate.chat`, the last first."""
    while isinstance(node, ast.Attribute):
        yield node.attr
        node = node.value
    if isinstance(node, ast.Name):
        yield node.id


def calls(tree):
    """Return each call with the names it is called by."""
    return [(node, tuple(dotted(node.func))) for node in ast.walk(tree) if isinstance(node, ast.Call)]


@cache
def parsed(name):
    return ast.parse((ROOT / name).read_text(encoding="utf-8"))


def sources():
    return [path.relative_to(ROOT).as_posix() for path in sorted(ROOT.rglob("*.py"))]


# --- The source


def is_transport(names):
    return names[:1] in {("send",), ("stream",)} and any("transport" in name for name in names[1:])


def test_only_the_gate_speaks_to_providers():
    """`transport.send` and `transport.stream` are called by the gate alone, and by who asks for lists of models."""
    found = {name for name in sources() if any(is_transport(names) for _, names in calls(parsed(name)))}

    assert found == TRANSPORT_USERS


def test_what_the_gate_sends_is_framed_by_a_booking():
    """Every exchange of chat and embeddings with a provider stands inside `async with framed(booking, …)`."""
    trees = [parsed(name) for name in ASKING]
    framed = {
        id(inner)
        for tree in trees
        for outer in ast.walk(tree)
        if isinstance(outer, ast.AsyncWith)
        and any(names == ("framed",) for item in outer.items for _, names in calls(item.context_expr))
        for inner in ast.walk(outer)
    }
    made = [call for tree in trees for call in calls(tree)]
    sent = [
        node for node, names in made if names == ("send",) or (is_transport(names) and names[0] == "stream")
    ]
    plain = [node for node, names in made if is_transport(names) and names[0] == "send"]
    users = {name: [node for node, names in calls(parsed(name)) if names == ("send",)] for name in sources()}

    assert len(sent) >= 3
    assert [node.lineno for node in sent if id(node) not in framed] == []
    assert plain == []
    assert {name for name, found in users.items() if found and name.startswith("engine/")} == set(ASKING)


def reached(tree, name):
    """Return every name that a function calls, itself or through functions and methods of its module."""
    functions = {
        node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    found, waiting = set(), [name]
    while waiting:
        for _, names in calls(functions[waiting.pop()]):
            if names and names[:2] not in found:
                found.add(names[:2])
                waiting += [names[0]] if names[0] in functions else []
    return found


def test_every_way_through_the_gate_is_booked():
    """Each way that reaches the transport reaches `admission.book` as well, and what is kept its own booking."""
    for file, (asking, expected) in ASKING.items():
        tree = parsed(file)
        public = [
            name
            for name, each in vars(asking).items()
            if inspect.iscoroutinefunction(each) and name[0] != "_"
        ]
        ways = {name: reached(tree, name) for name in public}
        sending = {
            name for name, names in ways.items() if ("send",) in names or ("stream", "transport") in names
        }

        assert sending == expected
        assert {name for name in sending if ("book", "_admission") in ways[name]} == sending
        # A count of tokens is never kept: it is asked of its vendor, or made here.
        kept = {name for name in sending if ("book_kept", "_admission") in ways[name]}
        assert kept == (set() if asking is Counting else sending)


@pytest.mark.parametrize("name", ["engine/media.py", "engine/jobs.py", "engine/speaking.py"])
def test_what_makes_media_is_framed_by_a_booking(name):
    """Exchanges that may be billed are driven inside `async with framed(booking, …)`, after `admission.book`."""
    tree = parsed(name)
    framed = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.AsyncWith)
        and any(names == ("framed",) for item in outer.items for _, names in calls(item.context_expr))
        for inner in ast.walk(outer)
    }
    driven = [
        node
        for node, names in calls(tree)
        if names == ("drive",) or (is_transport(names) and names[0] == "stream")
    ]

    assert len(driven) == 1
    assert [node.lineno for node in driven if id(node) not in framed] == []
    assert any(names[:2] == ("book", "admission") for _, names in calls(tree))


def test_who_asks_the_gate_is_known():
    """Only surfaces, the library and one command make calls; each other file that does has to be looked at."""
    found = {
        name
        for name in sources()
        if any(names[0] in SENDING and "gate" in names[1:] for _, names in calls(parsed(name)) if names)
    }

    assert found == GATE_USERS


# --- The real application

PICTURE = {"b64_json": in_base64(picture())}
SAYS = {
    "image": {"created": 1, "data": [PICTURE]},
    "image_edit": {"created": 1, "data": [PICTURE]},
    "transcription": {"text": "Hi"},
    "search": {"organic": []},
    "chat": {"id": "c", "model": "m", "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]},
    "embedding": {"model": "e", "object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}]},
}  # fmt: skip
USAGE = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
CHUNK = {
    "id": "c",
    "model": "m",
    "choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}],
}
STREAM = b"".join(
    f"data: {json.dumps(each)}\n\n".encode() for each in (CHUNK, {**CHUNK, "choices": [], "usage": USAGE})
)
TOML = """
    [providers.second]
    dialect = "openai"
    base_url = "{url}/v1"
    auth = {{ kind = "none" }}
    defaults = {{ chat = "m", embedding = "e", image = "i", image_edit = "i", speech = "s", transcription = "t" }}
    [[providers.second.models]]
    name = "m"
    operations = ["chat"]
    [[providers.second.models]]
    name = "e"
    operations = ["embedding"]
    [[providers.second.models]]
    name = "i"
    operations = ["image", "image_edit"]
    [[providers.second.models]]
    name = "s"
    operations = ["speech"]
    [[providers.second.models]]
    name = "t"
    operations = ["transcription"]

    [providers.finder]
    module = "serper"
    base_url = "{url}/finder"
    auth = {{ kind = "none" }}
    rank = 1
    defaults = {{ search = "f" }}
    [[providers.finder.models]]
    name = "f"
    operations = ["search"]
    search = {{ kinds = {{ web = ["max_results"] }} }}

    # What stands in the place of a name in a path.
    [aliases.x]
    targets = ["finder/f"]
"""
FORMS = {
    "/v1/images/edits": {"model": "second/i", "prompt": "a", "image": ("a.png", "image/png", picture())},
    "/v1/audio/transcriptions": {"model": "second/t", "file": ("a.wav", "audio/wav", recording())},
}
NATIVE_MEDIA = {
    "/llm-gate/v1/images/edits": {"images": [in_base64(picture())], "prompt": {"message": "a"}},
    "/llm-gate/v1/audio/transcriptions": {"audio": in_base64(recording())},
}
# No provider of the dialect swaps faces, and jobs are settled by whoever works on them.
NOT_HERE = {"face_swap", "video", "fine_tune"}


class CountingLedger:
    """The real ledger, which notes for each step how much the provider had seen by then.

    A reservation is answered only after a while, in which whoever does not wait for it would send.
    """

    def __init__(self, ledger, upstream):
        self.steps = []
        self._ledger = ledger
        self._upstream = upstream

    async def _submit(self, step):
        result = await self._ledger.submit(step)
        if isinstance(step, Reserve):
            await asyncio.sleep(0.02)
        self.steps.append((type(step), len(self._upstream.seen)))
        return result

    def submit(self, step):
        return asyncio.ensure_future(self._submit(step))

    def __getattr__(self, name):
        return getattr(self._ledger, name)


@pytest.fixture(scope="module")
def upstream():
    with fake_upstream() as running:
        yield running


@pytest.fixture
def settings(tmp_path, upstream, monkeypatch):
    monkeypatch.setenv("LLM_PRIMARY_PROVIDER", "second")
    file = tmp_path / "llm-gate.toml"
    file.write_text(TOML.format(url=upstream.url))
    yield Source(config_file=file, overrides={"data_dir": tmp_path / "data"}).read()
    logger = logging.getLogger("llm_gate")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


async def ask(application, route, body):
    """Make one request of the application and return its status."""
    headers = {**NATIVE_HEADERS, "content-type": "application/json", "host": "127.0.0.1:8080"}
    if route.header is not None:
        headers[route.header] = "2023-06-01"
    path = route.path.partition("{")[0] + ("x" + route.path.partition("}")[2] if "{" in route.path else "")
    scope = {
        "type": "http", "method": route.method, "path": path, "query_string": b"", "client": ("127.0.0.1", 1),
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    data = json.dumps(body or {}).encode()
    if route.reads_form and route.path in FORMS:
        data, headers["content-type"] = form(FORMS[route.path])
        scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    incoming = [{"type": "http.request", "body": data, "more_body": False}]
    sent = []

    async def receive():
        return incoming.pop() if incoming else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    await application(scope, receive, send)
    return sent[0]["status"]


def with_application(settings, upstream, work):
    """Do something with the real application, over real stores and a ledger that counts."""

    async def run():
        stores = open_stores(settings)
        ledger = CountingLedger(stores.ledger, upstream)
        gateway = build(settings, stores=structs.replace(stores, ledger=ledger))
        application = make_application(settings, gateway, Source())
        await gateway.start()
        try:
            return await work(application, ledger)
        finally:
            await gateway.close()

    return asyncio.run(run())


def reaches(endpoint):
    """Return the ways through the gate that an endpoint takes, itself or by the other methods of its class."""
    owner = getattr(endpoint, "__self__", None)
    if owner is None:
        return set()
    tree = ast.parse(textwrap.dedent(inspect.getsource(type(owner))))
    return {
        names[0]
        for names in reached(tree, endpoint.__name__)
        # A research asks the gate for all that it does.
        if (names[0] in SENDING and names[1:2] == ("gate",)) or names[:2] == ("open", "research")
    }


def test_every_row_that_reaches_a_provider_says_so(settings, upstream):
    """The rows with an operation are exactly those whose endpoints ask the gate for an answer."""

    async def work(application, _ledger):
        return application.router.routes

    rows = with_application(settings, upstream, work)
    by_source = {(row.method, row.path) for row in rows if reaches(row.endpoint)}

    assert by_source == {(row.method, row.path) for row in rows if row.operation is not None}
    assert len(by_source) >= 8
    assert {row.scope for row in rows if row.operation is not None} == {"inference"}
    assert all(row.policy == "caller" for row in rows if row.operation is not None)


def test_each_route_reserves_before_its_provider_hears_of_it(settings, upstream):
    """Through every row with an operation: one reservation, waited for, then the provider, then the settlement."""

    async def work(application, ledger):
        seen = {}
        for row in application.router.routes:
            if row.operation is None or row.operation in NOT_HERE:
                continue
            for stream in {"never": [False], "always": [True], "asked": [False, True]}[row.stream]:
                whole = Answer(body=b"ID3sound", headers={"content-type": "audio/mpeg"})
                if row.operation in SAYS:
                    whole = Answer.json({**SAYS[row.operation], "usage": USAGE})
                upstream.will(Answer.events(STREAM, b"data: [DONE]\n\n") if stream else whole)
                ledger.steps.clear()
                body = {
                    **(NATIVE_MEDIA.get(row.path) or row.example or {}),
                    **({"stream": stream} if row.stream == "asked" else {}),
                }
                status = await ask(application, row, body)
                seen[row.path, stream] = (status, len(upstream.seen), tuple(ledger.steps))
        return seen

    seen = with_application(settings, upstream, work)

    assert len(seen) >= 12
    assert seen == dict.fromkeys(seen, (200, 1, ((Reserve, 0), (Settle, 1))))


def test_no_other_route_reaches_a_provider(settings, upstream):
    """Every other row, asked for with its own example, leaves the provider alone and reserves nothing by itself."""

    async def work(application, ledger):
        upstream.will(Answer.json({}))
        asked = 0
        for row in application.router.routes:
            if row.operation is None:
                await ask(application, row, row.example)
                asked += 1
        return asked, [step for step, _ in ledger.steps if step is Settle]

    asked, settled = with_application(settings, upstream, work)

    assert asked >= 10
    assert upstream.seen == []
    assert settled == []
