"""Spoils llm-gate.toml files: from a good text and a number, the same mutants every time."""

import random
import re
from collections.abc import Callable, Iterator

_VALUES = (
    '""',
    '"x"',
    "'\\'",
    "0",
    "1",
    "-1",
    "70000",
    "1.5",
    "1e308",
    "nan",
    "-inf",
    f"1{'0' * 40}",
    "9" * 5000,
    "true",
    "[]",
    "[1]",
    '[""]',
    "{}",
    "{ a = 1 }",
    "2026-11-20",
    "07:32:00",
    '"""a\nb"""',
    '"\\uD800"',
    "[" * 2000,
)
_NUMBERS = ("-1", "0", "1", "65536", "604801", "1e-320", "1e400", "0x7fff", "-0.0", "inf", "nan", "9" * 30)
_STRAY = ('"', "'", "[", "]", "{", "}", "=", '"""', "\\", "\x00", "\x7f", "\r", "#", ",", ".")
_KEYS = (
    "colour = 'red'",
    "port = 1",
    "targets = []",
    "a.b.c = 1",
    "'' = 1",
    "kind = 'none'",
    "name = 'm'",
    "rpm = 0",
    "weight = 2",
    "tries = 21",
    "strategy = 'weighted'",
    "deployments.default.env = 'NOBODY'",
)
_TABLES = (
    "server",
    "timeouts",
    "logging",
    "api",
    "retries",
    "cooldown",
    "guards",
    "providers",
    "providers.first",
    "providers.first.deployments",
    "providers.first.timeouts",
    "aliases",
    "aliases.best",
)
_NAMES = ("nobody", "nobody/m", "first/", "/m", "best", "openai", "claude", "..", "sandbox/chat", "")
_BAD_BYTES = (b"\xff", b"\xc3(", b"\xe2\x82", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80", b"\x80")
_EMPTY = (b"", b"\n", b" \t\n", b"\xef\xbb\xbf", b"# nothing\n", b"\r\n\r\n", b"\x00", b"[server]\n")

_SETTING = re.compile(r"^(\s*[\w.-]+ = )(.+)$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])\d[\d_.]*(?![\w.])")
_STRING = re.compile(r'"([^"\n]*)"')
_TABLE = re.compile(r"^\[+[\w.]+\]+$", re.MULTILINE)

Chance = random.Random


def mutants(good: str, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield so many mutants of a text, each with the name of its kind; the kinds take turns."""
    kinds = tuple(KINDS.items())
    for number in range(count):
        name, spoil = kinds[number % len(kinds)]
        chance = random.Random(number)  # noqa: S311 - the same mutants every time
        yield name, spoil(good, chance)


def _flipped(good: str, chance: Chance) -> bytes:
    raw = bytearray(good.encode())
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        at = chance.randrange(len(raw))
        raw[at] = chance.choice((raw[at] ^ (1 << chance.randrange(8)), chance.randrange(256)))
    return bytes(raw)


def _without_lines(good: str, chance: Chance) -> bytes:
    lines = good.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    del lines[at : at + chance.choice((1, 1, 2, 5))]
    return "".join(lines).encode()


def _with_lines_twice(good: str, chance: Chance) -> bytes:
    lines = good.splitlines(keepends=True)
    at = chance.randrange(len(lines))
    again = lines[at : at + chance.choice((1, 1, 2, 5))]
    to = chance.choice((at, chance.randrange(len(lines) + 1)))
    return "".join([*lines[:to], *again, *lines[to:]]).encode()


def _shuffled(good: str, chance: Chance) -> bytes:
    lines = good.splitlines(keepends=True)
    a, b = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]
    return "".join(lines).encode()


def _other_value(good: str, chance: Chance) -> bytes:
    value = chance.choice(_VALUES)
    return _one_replaced(_SETTING, good, chance, lambda found: found[1] + value)


def _other_number(good: str, chance: Chance) -> bytes:
    number = chance.choice(_NUMBERS)
    return _one_replaced(_NUMBER, good, chance, lambda _found: number)


def _other_name(good: str, chance: Chance) -> bytes:
    name = chance.choice(_NAMES)
    return _one_replaced(_STRING, good, chance, lambda _found: f'"{name}"')


def _unknown_key(good: str, chance: Chance) -> bytes:
    key = chance.choice(_KEYS)
    return _one_replaced(_TABLE, good, chance, lambda found: f"{found[0]}\n{key}")


def _table_again(good: str, chance: Chance) -> bytes:
    name = chance.choice(_TABLES)
    table = chance.choice((f"[{name}]", f"[[{name}]]", f"[{name}.more]"))
    return f"{good}\n{table}\n{chance.choice(('', *_KEYS))}\n".encode()


def _broken_syntax(good: str, chance: Chance) -> bytes:
    at = chance.randrange(len(good))
    stray = chance.choice(_STRAY)
    return (good[:at] + stray + good[at + chance.choice((0, 1)) :]).encode()


def _cut(good: str, chance: Chance) -> bytes:
    return good.encode()[: chance.randrange(len(good))]


def _bad_bytes(good: str, chance: Chance) -> bytes:
    if chance.random() < 0.1:
        return good.encode(chance.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig")))
    raw = good.encode()
    at = chance.randrange(len(raw) + 1)
    return raw[:at] + chance.choice(_BAD_BYTES) + raw[at:]


def _empty(good: str, chance: Chance) -> bytes:
    return chance.choice(_EMPTY) * chance.choice((1, 1, 3)) + good[: chance.choice((0, 0, 1, 9))].encode()


def _twice_spoilt(good: str, chance: Chance) -> bytes:
    spoil = chance.choice((_other_value, _other_number, _other_name, _unknown_key, _with_lines_twice))
    once = spoil(good, chance).decode(errors="replace")
    return chance.choice((_flipped, _without_lines, _broken_syntax, _other_value))(once, chance)


KINDS: dict[str, Callable[[str, Chance], bytes]] = {
    "flipped bytes": _flipped,
    "lines left out": _without_lines,
    "lines twice": _with_lines_twice,
    "lines exchanged": _shuffled,
    "value of another kind": _other_value,
    "number out of range": _other_number,
    "wrong name": _other_name,
    "unknown key": _unknown_key,
    "table again": _table_again,
    "broken syntax": _broken_syntax,
    "cut off": _cut,
    "not UTF-8": _bad_bytes,
    "empty": _empty,
    "spoilt twice": _twice_spoilt,
}
"""Every way to spoil a file."""


def _one_replaced(
    pattern: re.Pattern[str], good: str, chance: Chance, new: Callable[[re.Match[str]], str]
) -> bytes:
    found = list(pattern.finditer(good))
    if not found:
        return good.encode()
    one = chance.choice(found)
    return (good[: one.start()] + new(one) + good[one.end() :]).encode()
