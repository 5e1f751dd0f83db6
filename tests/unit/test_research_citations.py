"""The numbers in an answer: those of sources stay, all others go, however the text is cut into pieces."""

import random

import pytest

from llm_gate.engine.research_citations import CitationFilter


def passed(text, sources=3, pieces=None):
    """Return what is passed on of a text, and the filter."""
    found = CitationFilter(sources)
    shown = "".join(found.feed(piece) for piece in (pieces or [text]))
    return shown + found.close(), found


CASES = [
    ("plain text", "plain text", [], []),
    ("a fact [1].", "a fact [1].", [1], []),
    ("a fact [1][3] and [2]", "a fact [1][3] and [2]", [1, 3, 2], []),
    ("a fact [4].", "a fact .", [], [4]),
    ("a fact [0] [00] [999999999]", "a fact   ", [], [0, 999999999]),
    ("both [1, 2]", "both [1, 2]", [1, 2], []),
    ("one of them [1, 7]", "one of them [1]", [1], [7]),
    ("a range [1-3]", "a range [1-3]", [1, 2, 3], []),
    ("a range [2\u20135]", "a range [2][3]", [2, 3], [4, 5]),
    ("a note [^2]", "a note [2]", [2], []),
    ("[citation needed] [x] []", "[citation needed] [x] []", [], []),
    ("an [ 1 ] apart", "an [ 1 ] apart", [1], []),
    ("the end [1", "the end [1", [], []),
    ("the end [", "the end [", [], []),
    ("a year [2024] is none", "a year  is none", [], [2024]),
    ("a link [1](https://evil.example/?q=secret) here", "a link [1] here", [1], []),
    ("a link [1](evil.example/x)", "a link [1]", [1], []),
    ("a link [9](https://evil.example)", "a link ", [], [9]),
    ("a remark [1](as it says)", "a remark [1] (as it says)", [1], []),
    ("a reference [1][evil]", "a reference [1]", [1], []),
    ("two in a row [1][ 2 ]", "two in a row [1][ 2 ]", [1, 2], []),
    ("[1]: https://evil.example", "[1] https://evil.example", [1], []),
    ("text\n  [2]: https://evil.example", "text\n  [2] https://evil.example", [2], []),
    ("he said [2]: yes", "he said [2]: yes", [2], []),
    ("code `a[7]` stays", "code `a[7]` stays", [], []),
    ("```\na[7] = b[1]\n```\nbut [7] goes", "```\na[7] = b[1]\n```\nbut  goes", [], [7]),
    ("an open ` tick\n\nends with its paragraph [8]", "an open ` tick\n\nends with its paragraph ", [], [8]),
    ("``a ` [5]`` [5]", "``a ` [5]`` ", [], [5]),
    ("unclosed [1](https://evil.example", "unclosed [1] (https://evil.example", [1], []),
    ("one in another [[9]9]", "one in another [?9]", [], [9]),
    ("one in another [1[9]]", "one in another [1?]", [], [9]),
    ("two links [1](http://a.b)(http://c.d)", "two links [1]", [1], []),
    ("[1][9]: https://evil.example", "[1] : https://evil.example", [1], [9]),
    ("behind another [1][9](as said)", "behind another [1] (as said)", [1], [9]),
    ("[1]:: https://evil.example", "[1] : https://evil.example", [1], []),
    ("\u201e\U0001f600[1]\u201c", "\u201e\U0001f600[1]\u201c", [1], []),
]


@pytest.mark.parametrize(("text", "wanted", "cited", "removed"), CASES)
def test_citations_point_at_sources(text, wanted, cited, removed):
    """Each number that is passed on is one of the three sources', and what was taken out is told."""
    shown, found = passed(text)

    assert (shown, found.cited, found.removed) == (wanted, cited, removed)


@pytest.mark.parametrize(("text", "wanted", "cited", "removed"), CASES)
def test_pieces_make_no_difference(text, wanted, cited, removed):
    """Cut at every place, and into single characters, a text is passed on as in one piece."""
    cuts = [[text[:at], text[at:]] for at in range(len(text) + 1)]
    for pieces in [*cuts, list(text)]:
        shown, found = passed(text, pieces=pieces)
        assert (shown, found.cited, found.removed) == (wanted, cited, removed), pieces


def test_nothing_false_ever_gets_out():
    """Of random texts in random pieces, no piece that was sent on holds a number without a source outside of code."""
    chance = random.Random(7)  # noqa: S311 - to be the same again
    words = ["[1]", "[9]", "[", "]", "1", "2, 8", "(", ")", "http://x.y", ":", "\n", " ", "word", "^", "-"]
    for _ in range(2_000):
        text = "".join(chance.choice(words) for _ in range(12))
        cuts = sorted(chance.randrange(len(text) + 1) for _ in range(3))
        pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        shown, found = passed(text, pieces=pieces)
        again, _ = passed(text)
        assert shown == again, pieces
        assert all(1 <= number <= 3 for number in found.cited)
        assert (passed(shown)[1].removed, passed(shown)[1].links) == ([], 0), (text, shown)


def test_text_is_not_held_back_for_long():
    """What cannot become a citation is sent on at once; a long bracket is no reason to wait."""
    found = CitationFilter(3)

    assert found.feed("A fact") == "A fact"
    assert found.feed(" [") == " "
    assert found.feed("not a number") == "[not a number"
    assert found.feed(" [1]") == " "
    assert found.feed(".") == "[1]."
    assert len(found.feed("[" + "1 " * 200)) > 100


def test_a_long_text_is_read_in_time():
    """A hundred thousand open brackets, and as many pieces, take a moment."""
    found = CitationFilter(3)
    shown = "".join(found.feed("[1") for _ in range(20_000)) + found.close()

    assert shown == "[1" * 20_000
    assert passed("[" * 100_000)[0] == "[" * 100_000
    assert passed("[1](" * 20_000)[1].cited == [1]
