"""Promises of the documents: links lead somewhere, names are complete, examples load."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import msgspec
import pytest

from llm_gate.bootstrap import load_directory
from llm_gate.catalog.loader import load_catalog
from llm_gate.domain.catalog import (
    AuthSpec,
    Catalog,
    DeadlineSpec,
    DeploymentSpec,
    ModelSpec,
    PriceCondition,
    PriceSpec,
    ProviderSpec,
)
from llm_gate.domain.plan_tables import PlanTable
from llm_gate.settings import (
    ApiSettings,
    LoggingSettings,
    PlanSettings,
    ServerSettings,
    TimeoutSettings,
    load_settings,
)
from llm_gate.settings.published import ConfigFile
from llm_gate.settings.records import AlertSettings, CooldownSettings, RetrySettings
from llm_gate.settings.variables import OVERRIDES, SECRETS
from support.gateway import clean_environment

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
CONFIGURATION = ROOT / "docs" / "configuration.md"
CONFIGURATION_TABLES = set(ConfigFile.__struct_fields__)
MAX_ARCHITECTURE_LINES = 199

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_VARIABLE = re.compile(r"^([A-Z][A-Z0-9_]*)=", re.MULTILINE)
_REQUIREMENT = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)


def read(path):
    return path.read_text(encoding="utf-8")


def relative(path):
    return path.relative_to(ROOT).as_posix()


def prose(path):
    """Return a document without its code blocks."""
    return _FENCE.sub("", read(path))


def anchors(path):
    """Return the fragments by which the headings of a document can be linked to."""
    kept = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in _HEADING.findall(prose(path)))
    return {heading.replace(" ", "-") for heading in kept}


def blocks(language):
    """Return the code blocks of a language in all documents, named by document and number."""
    found = []
    for path in DOCUMENTS:
        texts = [text for _, kind, text in _FENCE.findall(read(path)) if kind == language]
        found += [pytest.param(text, id=f"{relative(path)}:{n}") for n, text in enumerate(texts, 1)]
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_relative_links_lead_to_files_and_headings(path):
    """Every relative link of a document names a file that is there, and a heading in it where it names one."""
    dead = []
    for link in _LINK.findall(prose(path)):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, fragment = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (fragment and fragment not in anchors(target)):
            dead.append(link)

    assert dead == []


def test_the_architecture_fits_on_a_few_screens():
    """ARCHITECTURE.md stays below 200 lines."""
    assert len(read(ROOT / "ARCHITECTURE.md").splitlines()) <= MAX_ARCHITECTURE_LINES


@pytest.mark.parametrize("name", ["runtime", "build", "otel", "dev"])
def test_every_direct_dependency_has_its_reason(name):
    """Each package of a requirements file has a line in CONTRIBUTING.md that says why it is there."""
    wanted = set(_REQUIREMENT.findall(read(ROOT / "requirements" / f"{name}.in")))
    explained = set(re.findall(r"^- `([^`]+)`: \S", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE))

    assert wanted - explained == set()


def test_no_dependency_is_explained_that_is_gone():
    """CONTRIBUTING.md explains no package that the requirements do not name."""
    files = (ROOT / "requirements").glob("*.in")
    wanted = {package for file in files for package in _REQUIREMENT.findall(read(file))}
    explained = set(re.findall(r"^- `([^`]+)`: \S", read(ROOT / "CONTRIBUTING.md"), re.MULTILINE))

    assert explained - wanted == set()


def test_every_variable_is_documented():
    """Each variable of .env.example, and each that the settings read, stands in docs/configuration.md."""
    known = {*_VARIABLE.findall(read(ROOT / ".env.example")), *(name for name, _, _ in OVERRIDES), *SECRETS}
    text = read(CONFIGURATION)

    assert {name for name in known if f"`{name}`" not in text} == set()


def test_the_example_environment_names_every_variable():
    """Each variable of its own that the settings read stands in .env.example."""
    offered = set(_VARIABLE.findall(read(ROOT / ".env.example")))

    assert {*(name for name, _, _ in OVERRIDES), *SECRETS} - offered == set()


@pytest.mark.parametrize(
    "record",
    [
        ServerSettings,
        TimeoutSettings,
        LoggingSettings,
        ApiSettings,
        PlanSettings,
        PlanTable,
        AlertSettings,
        RetrySettings,
        CooldownSettings,
        ProviderSpec,
        DeploymentSpec,
        DeadlineSpec,
        AuthSpec,
        ModelSpec,
        PriceSpec,
        PriceCondition,
    ],
)
def test_every_key_of_the_file_is_documented(record):
    """Each key that llm-gate.toml may hold stands in docs/configuration.md."""
    text = read(CONFIGURATION)
    keys = [field.encode_name for field in msgspec.structs.fields(record)]

    assert [key for key in keys if f"`{key}`" not in text] == []


def test_every_provider_is_documented():
    """Each provider of the catalog has its row in docs/providers.md."""
    catalog: Catalog = load_catalog()
    text = read(ROOT / "docs" / "providers.md")

    assert [name for name in catalog.providers if f"\n| `{name}` |" not in text] == []


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_examples_load(text, tmp_path):
    """Each TOML example is a configuration, or a vendor's file, that the gateway takes."""
    tables = tomllib.loads(text)

    if set(tables) <= CONFIGURATION_TABLES:
        file = tmp_path / "llm-gate.toml"
        file.write_text(text, encoding="utf-8")
        settings = load_settings({}, config_file=file)
        assert set(settings.providers) == set(tables.get("providers", {}))
        assert set(load_directory(settings).catalog.aliases) == set(tables.get("aliases", {}))
    else:
        assert "example" in load_catalog({"example": tables}).providers


@pytest.mark.parametrize("text", blocks("json"))
def test_json_examples_are_json(text):
    """Each JSON example is an object."""
    assert isinstance(json.loads(text), dict)


LIBRARY = ("docs/library.md", "docs/media.md", "docs/search.md")
PYTHON = blocks("python")


def test_the_examples_of_the_library_run(tmp_path):
    """The examples of the library, one after the other, are a program that works for whoever has no key."""
    program = "\n".join(each.values[0] for each in PYTHON if each.id.startswith(LIBRARY))
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"{program}\nassert city.keys() == {{'name', 'inhabitants', 'sights'}}",
        ],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert "You said: Hello" in done.stdout


@pytest.mark.parametrize("text", [each for each in PYTHON if not each.id.startswith(LIBRARY)])
def test_python_examples_end_with_a_provider(text):
    """Each Python example of a provider runs and ends with one of a known dialect."""
    names = {}
    exec(compile(text, "<example>", "exec"), names)  # noqa: S102 - our own documents

    assert names["provider"].dialect == "openai"
