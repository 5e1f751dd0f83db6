"""Finds the line on which a key of a TOML text is written; the standard parser keeps no positions.

Theory of operation: one pass over a text that tomllib has accepted notes, for each key and array item, the path
(written `a.b[0].c`, as faults are) and the offset where it first appears. A path that is not in the text falls
back to the longest one that encloses it, so that a missing key points at its table.
"""

import re
import tomllib

from llm_gate.settings.faults import lies_within

_SPACE = re.compile(r"[ \t\r]*")
_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2}(?!"))'
    r"|'''.*?'''(?:'{0,2}(?!'))"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'",
    re.DOTALL,
)
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR = re.compile(r"[^,\]}#\n]*")


def line_of(text: str, path: str) -> int | None:
    """Return the line (from 1) of a key path such as `providers.second.models[0].name` in a TOML text.

    None means that not even the outermost key is written there.
    """
    offsets = _Scan(text).offsets
    enclosing = [known for known in offsets if lies_within(path, known)]
    if not enclosing:
        return None
    return text.count("\n", 0, offsets[max(enclosing, key=len)]) + 1


class _Stop(Exception):
    """The text is not TOML from here on: what was found so far must do."""


class _Scan:
    def __init__(self, text: str) -> None:
        self.offsets: dict[str, int] = {}
        self._text = text
        self._at = 0
        self._sizes: dict[str, int] = {}
        try:
            self._document()
        except (_Stop, RecursionError):
            return

    def _document(self) -> None:
        table = ""
        self._skip(_BLANK)
        while self._at < len(self._text):
            start = self._at
            if self._take("[["):
                table = self._header(start, is_array=True)
            elif self._take("["):
                table = self._header(start, is_array=False)
            else:
                self._pair(table)
            self._skip(_BLANK)

    def _header(self, start: int, *, is_array: bool) -> str:
        path = ""
        parts = self._key()
        for depth, part in enumerate(parts, 1):
            path = _join(path, part)
            self._note(path, start)
            if is_array and depth == len(parts):
                self._sizes[path] = self._sizes.get(path, 0) + 1
            # A path through an array of tables means its newest table.
            if path in self._sizes:
                path = f"{path}[{self._sizes[path] - 1}]"
                self._note(path, start)
        self._expect("]]" if is_array else "]")
        return path

    def _pair(self, table: str) -> None:
        start = self._at
        path = table
        for part in self._key():
            path = _join(path, part)
            self._note(path, start)
        self._expect("=")
        self._skip(_SPACE)
        self._value(path)

    def _key(self) -> list[str]:
        parts = [self._key_part()]
        while self._take("."):
            parts.append(self._key_part())
        return parts

    def _key_part(self) -> str:
        self._skip(_SPACE)
        found = _STRING.match(self._text, self._at) or _BARE_KEY.match(self._text, self._at)
        if found is None:
            raise _Stop
        self._at = found.end()
        self._skip(_SPACE)
        if found[0][0] not in "\"'":
            return found[0]
        try:
            return str(tomllib.loads(f"key = {found[0]}")["key"])
        except tomllib.TOMLDecodeError:
            raise _Stop from None

    def _value(self, path: str) -> None:
        if self._take("["):
            self._array(path)
        elif self._take("{"):
            self._inline_table(path)
        elif self._text.startswith(('"', "'"), self._at):
            self._skip(_STRING)
        else:
            self._skip(_SCALAR)

    def _array(self, path: str) -> None:
        index = 0
        self._skip(_BLANK)
        while not self._take("]"):
            item = f"{path}[{index}]"
            self._note(item, self._at)
            self._value(item)
            self._skip(_BLANK)
            self._separator("]")
            index += 1

    def _inline_table(self, path: str) -> None:
        self._skip(_BLANK)
        while not self._take("}"):
            self._pair(path)
            self._skip(_BLANK)
            self._separator("}")

    def _separator(self, closing: str) -> None:
        if self._take(","):
            self._skip(_BLANK)
        elif not self._text.startswith(closing, self._at):
            raise _Stop

    def _note(self, path: str, offset: int) -> None:
        self.offsets.setdefault(path, offset)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        if found is None:
            raise _Stop
        self._at = found.end()

    def _take(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _expect(self, token: str) -> None:
        if not self._take(token):
            raise _Stop


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
