"""Texts as callers may send them, for properties."""

from hypothesis import strategies as st

REFUSED = "".join(map(chr, (*range(7), *range(0x0E, 0x1B), *range(0x1C, 0x20))))
"""Control characters that no body may hold."""

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters=REFUSED)
