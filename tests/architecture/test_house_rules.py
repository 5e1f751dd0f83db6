"""The rules of the house that no linter knows."""

import ast
import importlib
import inspect
import pkgutil
import re
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import msgspec
import pytest

import llm_gate
from llm_gate.domain.errors import GateError
from llm_gate.http.failures import STATUS

ROOT = Path(llm_gate.__file__).parent
PROJECT = ROOT.parents[1]
SOURCES = sorted(ROOT.rglob("*.py"))
MAX_MODULE_LINES = 600
MAX_FUNCTION_LINES = 70
FORBIDDEN_WORDS = {"manager", "helper", "helpers", "util", "utils", "base", "common", "misc", "service"}
# The edge, and worker loops that must outlive whatever goes wrong in one round.
# The boundaries to providers and guards that are not ours are such places, too.
BROAD_EXCEPT_PLACES = {"http/app.py", "engine/access.py", "storage/writer.py", "client/foreign.py"} | {
    "engine/guards.py",
    "engine/job_work.py",
    "engine/batch_work.py",
    "bootstrap/guards.py",
}

# Files named after a wire format, and what must name one to put the pieces together: a wire format is called
# after the vendor that made it. `settings/` holds the documented variables.
WIRE_FORMAT_FILES = re.compile(
    r"dialects/_?(openai|anthropic|gemini|cohere|ollama)\w*\.py|http/(openai|anthropic)\w*\.py|settings/\w+\.py"
    r"|dialects/subscription_names\.py|client/documented\.py"
)
CREDENTIAL_PREFIXES = {"domain/errors.py": {"hf", "xai"}}
COMPOSITION = {"bootstrap/reach.py", "http/server.py", "http/banner.py", "http/native.py"}


def relative(path: Path) -> str:
    """Return a source's path below the package."""
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_module_outgrows_its_cap(path):
    """A module has at most 600 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_MODULE_LINES


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_function_outgrows_its_cap(path):
    """A function has at most 70 lines."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    too_long = {
        f.name: f.end_lineno - f.lineno + 1
        for f in functions
        if f.end_lineno - f.lineno >= MAX_FUNCTION_LINES
    }

    assert too_long == {}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_names_say_what_a_thing_is(path):
    """No name uses a word under which unrelated code collects, nor a version number."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    words = {word for name in [*names, path.stem] for word in re.findall(r"[A-Z]?[a-z]+", name)}

    assert set() == {word.lower() for word in words} & FORBIDDEN_WORDS
    assert [name for name in names if re.search(r"_v\d+$|V\d+$", name)] == []


@cache
def vendor_words() -> frozenset[str]:
    """Return every name and alias of a provider, from the catalog's files."""
    words: set[str] = set()
    for path in (ROOT / "catalog" / "data").glob("*.toml"):
        words |= {path.stem, *tomllib.loads(path.read_text(encoding="utf-8")).get("aliases", ())}
    return frozenset(words)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_vendor_is_named_only_in_its_own_files(path):
    """No source names a vendor, in a name or a text, but its own module and the files of a wire format."""
    name = relative(path)
    if WIRE_FORMAT_FILES.fullmatch(name) or name in COMPOSITION:
        return
    own = {path.stem, path.parent.name}
    # Dialects import each other's shared parts, and a provider's module the dialect it speaks.
    with tokenize.open(path) as source:
        tokens = list(tokenize.generate_tokens(source.readline))
    imports = {
        line
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        for line in range(node.lineno, node.end_lineno + 1)
    }
    found: set[str] = set()
    for token in tokens:
        if token.type not in {tokenize.NAME, tokenize.STRING} or token.start[0] in imports:
            continue
        if token.type == tokenize.STRING and token.string.lstrip("rbfRBF").startswith('"""'):
            continue
        found |= set(re.findall(r"[a-z_]+", token.string.lower())) & (vendor_words() - own - {"together"})
    spoken = {"openai"} if name.startswith("providers/") else CREDENTIAL_PREFIXES.get(name, set())

    assert set() == found - spoken


def test_every_error_class_has_a_status():
    """Each error of the tree leads to a row of the one status table, its own or its parent's."""

    def leaves(kind):
        yield kind
        for child in kind.__subclasses__():
            yield from leaves(child)

    missing = [
        kind.__name__
        for kind in leaves(GateError)
        if kind is not GateError and not any(parent in STATUS for parent in kind.__mro__[:-3])
    ]

    assert missing == []


def test_records_are_frozen_and_keyword_only_in_the_domain():
    """Every value of the domain is an immutable record that is built by keyword."""
    bad = []
    for module in pkgutil.iter_modules([str(ROOT / "domain")]):
        for name, kind in vars(importlib.import_module(f"llm_gate.domain.{module.name}")).items():
            if inspect.isclass(kind) and issubclass(kind, msgspec.Struct) and kind is not msgspec.Struct:
                kinds = {parameter.kind for parameter in inspect.signature(kind).parameters.values()}
                if not kind.__struct_config__.frozen or kinds - {inspect.Parameter.KEYWORD_ONLY}:
                    bad.append(name)

    assert bad == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_only_the_marked_places_catch_everything(path):
    """`except Exception` stands only in the places the house allows."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    broad = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (
            node.type is None
            or (isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"})
        )
    ]

    assert not broad or relative(path) in BROAD_EXCEPT_PLACES


def test_public_names_are_pinned():
    """The package exports exactly these names; a change here is a change for users."""
    assert llm_gate.__all__ == [
        "AudioGenerationResult",
        "BlockingLLMGate",
        "BlockingTextStream",
        "CallQuote",
        "ChatAnswer",
        "ClaudeProvider",
        "CohereProvider",
        "EmbeddingAnswer",
        "FaceSwapOptions",
        "FaceSwapProvider",
        "FoundPage",
        "GateError",
        "GateStatus",
        "GeminiProvider",
        "ImageEditOptions",
        "ImageEditProvider",
        "ImageGenerationOptions",
        "ImageGenerationProvider",
        "ImageGenerationResult",
        "LLMFactory",
        "LLMGate",
        "LLMProvider",
        "LLMResponse",
        "OllamaProvider",
        "OpenAIProvider",
        "QuotaExceeded",
        "ResearchAnswer",
        "SearchAnswer",
        "Source",
        "TextStream",
        "TranscriptionResult",
        "VideoFailed",
        "VideoGenerationOptions",
        "VideoGenerationProvider",
        "VideoGenerationResult",
        "VideoNotReady",
        "WorkflowQuote",
        "__version__",
        "gemini_structured_json_response",
        "gemini_text_response",
        "get_gemini_api_key",
        "get_huggingface_api_key",
        "huggingface_structured_json_response",
        "huggingface_text_response",
        "llm_text_gen",
    ]


def test_no_committed_requirement_names_an_index():
    """The locks hold hashes, and no address of any package index."""
    for path in (PROJECT / "requirements").glob("*.txt"):
        text = path.read_text(encoding="utf-8")

        assert "--hash=sha256:" in text
        assert not re.search(r"--index|--find-links|https?://|file:", text)
