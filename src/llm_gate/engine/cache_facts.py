"""What must agree in two questions that are nearly the same, and what vectors do not see: numbers, names, denials.

Two questions that differ in a year or in a "not" are as near to each other as two wordings of one. So these go into the
group of a question: only questions that have the same of them, in the same order, are compared at all.
"""

import re

_WORD = re.compile(r"[^\W_]+(?:['.,:/+#-]*[^\W_]+)*[%+#]*|[.!?:]")
_QUOTED = re.compile(r"'([^'\"]{2,})'(?!\w)|\"([^\"]{2,})\"")
_STOPS = frozenset(".!?:")
_PLAIN_QUOTES = str.maketrans(
    dict.fromkeys("\u2018\u2019", "'") | dict.fromkeys("\u201c\u201d\u201e\u00ab\u00bb", '"')
)
# fmt: off
_DENIALS = frozenset({
    "not", "no", "never", "none", "nor", "neither", "without", "cannot", "nicht", "kein", "keine", "keinen", "nie",
    "ohne", "ne", "pas", "jamais", "sans", "sin", "nunca", "non", "senza", "não", "sem", "nem",
})
# fmt: on


def facts_of(text: str) -> tuple[str, ...]:
    """Return the facts of a text in their order: numbers, names, denials, and at the end what stands in quotes.

    A name is a word with a capital letter that does not begin a sentence.
    """
    text = text.translate(_PLAIN_QUOTES)
    found: list[str] = []
    begins = True
    for match in _WORD.finditer(text):
        word = match[0]
        if word in _STOPS:
            begins = True
            continue
        low = word.lower()
        if low in _DENIALS or low.endswith("n't"):
            found.append("not")
        elif _is_fact(word, begins=begins):
            found.append(low)
        begins = False
    return (*found, *(f'"{single or double}"'.lower() for single, double in _QUOTED.findall(text)))


def _is_fact(word: str, *, begins: bool) -> bool:
    if any(mark.isdigit() for mark in word) or any(mark.isupper() for mark in word[1:]):
        return True
    return word[0].isupper() and not begins and word.partition("'")[0] != "I"
