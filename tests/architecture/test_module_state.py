"""No module keeps state: what is made on import stays as it was made."""

import ast
import re
from pathlib import Path

import pytest

import llm_gate

ROOT = Path(llm_gate.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]*|__all__|__slots__")
COLLECTIONS = {
    "list",
    "dict",
    "set",
    "bytearray",
    "defaultdict",
    "deque",
    "Counter",
    "OrderedDict",
    "ChainMap",
}
READ_ONLY = {"Mapping", "Sequence", "Collection", "Iterable", "Set", "AbstractSet", "Final"}
DISPLAYS = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
CHANGES = {
    "add",
    "append",
    "clear",
    "discard",
    "extend",
    "insert",
    "move_to_end",
    "pop",
    "popitem",
    "popleft",
    "remove",
    "reverse",
    "setdefault",
    "sort",
    "update",
    "appendleft",
    "difference_update",
    "intersection_update",
    "symmetric_difference_update",
}
MEMORIES = {"cache", "lru_cache"}


def relative(path):
    return path.relative_to(ROOT).as_posix()


def word(node):
    """Return the last name of a dotted or subscripted expression."""
    if isinstance(node, ast.Subscript):
        return word(node.value)
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def import_time(body):
    """Return the statements that run on import, those under `if`, `try`, `with`, `for` and in classes too."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        yield statement
        for field in ("body", "orelse", "finalbody"):
            yield from import_time(getattr(statement, field, []))
        for handler in getattr(statement, "handlers", []):
            yield from import_time(handler.body)


def is_collection(value):
    return isinstance(value, DISPLAYS) or (isinstance(value, ast.Call) and word(value.func) in COLLECTIONS)


def is_record(statement):
    return isinstance(statement, ast.ClassDef) and any(
        word(b) in {"Struct", "Protocol"} for b in statement.bases
    )


def variables(tree):
    """Return the names bound on import to a collection that can change and does not say that it must not."""
    records = {id(part) for node in ast.walk(tree) if is_record(node) for part in node.body}
    found = []
    for statement in import_time(tree.body):
        # The defaults of a record are copied for each value.
        if id(statement) in records:
            continue
        targets = []
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign) and word(statement.annotation) not in READ_ONLY:
            targets = [statement.target]
        if targets and statement.value is not None and is_collection(statement.value):
            found += [word(target) for target in targets if not CONSTANT.fullmatch(word(target) or "")]
    return found


def bound_on_import(tree):
    """Return every name that a module defines or imports."""
    names = set()
    for statement in import_time(tree.body):
        if isinstance(statement, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names |= {
                each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)
            }
    return names


def local_names(function):
    arguments = function.args
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    stored = {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return stored | {argument.arg for argument in every if argument is not None}


def changed(node):
    """Return the expressions that a statement or a call changes in place."""
    if isinstance(node, ast.Subscript | ast.Attribute) and not isinstance(node.ctx, ast.Load):
        yield node.value
    elif isinstance(node, ast.AugAssign):
        yield node.target
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CHANGES:
        yield node.func.value


def changes(tree):
    """Return the names of a module's own or imported values that its functions change."""
    shared = bound_on_import(tree)
    found = []
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        own = local_names(function)
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                found += node.names
            found += [
                target.id
                for target in changed(node)
                if isinstance(target, ast.Name) and target.id in shared - own
            ]
    return found


def memories(tree):
    """Return the functions that remember their results for as long as the process lives."""
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for mark in node.decorator_list
        if word(mark.func if isinstance(mark, ast.Call) else mark) in MEMORIES
    ]


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_collections_made_on_import_are_constants(path):
    """A list, dict or set of a module or class is named or annotated as what nobody changes."""
    assert variables(parsed(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_function_changes_what_was_made_on_import(path):
    """No function rebinds a module's name, nor changes a value that the module defines or imports."""
    assert changes(parsed(path)) == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_function_remembers(path):
    """No function keeps results between calls: what lives long is built in one place and passed on."""
    assert memories(parsed(path)) == []


BAD = """
from elsewhere import TABLE
import os
seen = []
if True:
    known: dict[str, int] = {}
class Holder:
    items = set()
def f():
    global seen
    TABLE["a"] = 1
    os.environ["A"] = "b"
    known.update(a=1)
    seen += [1]
@functools.lru_cache(maxsize=1)
def g(): ...
"""
GOOD = """
NAMES = ["a"]
_ROWS = {n: 1 for n in NAMES}
table: Mapping[str, int] = {"a": 1}
pair = ("a", "b")
class Record(Struct):
    items: Mapping[str, int] = {}
def f(table):
    table["a"] = 1
    found = dict(NAMES)
    found.update(a=1)
"""


def test_the_rules_see_what_they_forbid():
    """State is found in modules, under conditions and in classes, and changes of imported values too."""
    bad = ast.parse(BAD)

    assert variables(bad) == ["seen", "known", "items"]
    assert sorted(set(changes(bad))) == ["TABLE", "known", "seen"]
    assert memories(bad) == ["g"]
    good = ast.parse(GOOD)
    assert (variables(good), changes(good), memories(good)) == ([], [], [])
