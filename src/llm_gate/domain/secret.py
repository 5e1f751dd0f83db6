"""A value that must never be printed."""


class Secret:
    """A credential: shows itself to nobody but `reveal`, and cannot be pickled."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself; call this only where the value is put on the wire."""
        return self._value

    def redact(self, text: str) -> str:
        """Return `text` without any occurrence of the value."""
        return text.replace(self._value, "[redacted]") if self._value else text

    def __repr__(self) -> str:
        return "Secret(***)"

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not serialisable")
