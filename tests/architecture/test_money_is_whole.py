"""Money is counted in whole nano-dollars: the code that does so has no fractions a computer would round."""

import ast
from pathlib import Path

import pytest

import llm_gate

ROOT = Path(llm_gate.__file__).parent
NAMES = (
    *("money", "pricing", "ledger", "book", "limits", "plans"),
    *("bounds", "media_prices", "text_rates"),
)
SOURCES = sorted(
    [*(ROOT / "domain" / f"{name}.py" for name in NAMES), *(ROOT / "storage").glob("ledger*.py")]
)


def fractions(source):
    """Return the lines with a literal with a point, a call or a name of `float`, or a true division."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_literal = isinstance(node, ast.Constant) and isinstance(node.value, float | complex)
        is_name = isinstance(node, ast.Name) and node.id == "float"
        is_division = isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div)
        if is_literal or is_name or is_division:
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_float_comes_near_money(path):
    """No literal with a point, no `float`, no division with `/`."""
    assert fractions(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("line", ["a = 1.5", "a = float(b)", "a = b / c", "a /= 2", "def f(a: float): ..."])
def test_the_search_finds_what_it_looks_for(line):
    """The test above can fail."""
    assert fractions(line) == [1]
