"""The library's types of media say what they should: a type checker reads a program that uses them."""

import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).with_name("library_media.py")
PROJECT = Path(__file__).parents[2]


def test_the_types_of_media_promise_what_they_should():
    """Every line of the program has the type that it says, and every mistake in it is found."""
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(PROGRAM)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert [line for line in done.stdout.splitlines() if "typing/library_media.py" in line] == []
    assert done.stderr == ""
