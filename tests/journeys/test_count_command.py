"""`llm-gate count` as people run it: a text in, a number out, and nothing left behind."""

import json

import pytest

from support.forking import clean_environment, run_command


def count(folder, *arguments, code=0, text=None, **environment):
    """Run the command in an empty folder and return what it printed."""
    done = run_command(
        "count",
        *arguments,
        "--no-env-file",
        folder=folder,
        environment=clean_environment({"OPENAI_API_KEY": "sk-canary-0123456789", **environment}),
        text=text or "",
    )
    assert done.returncode == code, done.stderr
    assert "sk-canary" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_text_is_counted_without_a_trace(tmp_path):
    """By the model's tokenizer, from the command line or standard input; no store is made for it."""
    said = count(tmp_path, "-m", "openai/gpt-4o", "Why is the sky blue?")
    guessed = count(tmp_path, "-m", "gpt-4o", "--by", "estimate", "--json", text="Why is the sky blue?")

    assert said == "13 tokens for openai/gpt-4o (tokenizer, likely 11 to 15 by the vendor's count)\n"
    assert json.loads(guessed) == {
        "input_tokens": 12,
        "least_tokens": 9,
        "most_tokens": 17,
        "source": "estimate",
        "model": "openai/gpt-4o",
    }
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("-m", "no-such-model", "a"), 1, "no-such-model"),
        ((), 2, "the text is empty"),
        (("--by", "me", "a"), 2, "'me'"),
    ],
)
def test_what_cannot_be_counted_is_said(tmp_path, arguments, code, said):
    """A name that leads nowhere, nothing to count, and a source that is none end with their own exit codes."""
    assert said in count(tmp_path, *arguments, code=code)
