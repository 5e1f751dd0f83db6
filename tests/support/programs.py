"""Programs of users: scripts in processes of their own, and what vendors tell them."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from support.gateway import clean_environment
from support.upstream import Answer


class Done(NamedTuple):
    """What a program printed, as JSON by line, and what it wrote to stderr."""

    printed: list[Any]
    told: list[str]


def run_program(
    folder: Path, code: str, environment: Mapping[str, str] = {}, *, timeout_s: float = 60
) -> Done:
    """Run a program that uses the library in a folder; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=clean_environment(environment),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Done([json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines())


def openai_says(text: str, finish_reason: str = "stop") -> Answer:
    """Answer as OpenAI does."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
    return Answer.json({"id": "c", "model": "m", "choices": [choice], "usage": usage})


def gemini_says(text: str) -> Answer:
    """Answer as Gemini does."""
    candidate = {"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}
    return Answer.json(
        {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "g", "responseId": "r"}
    )


def claude_says(text: str) -> Answer:
    """Answer as Anthropic does."""
    return Answer.json(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "c",
            "content": [{"type": "text", "text": text}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 4},
        }
    )


def gemini_refuses(status: int, word: str, message: str = "no") -> Answer:
    """Fail as Gemini does."""
    return Answer.json({"error": {"code": status, "message": message, "status": word}}, status)


def claude_refuses(status: int, kind: str, message: str = "no") -> Answer:
    """Fail as Anthropic does."""
    return Answer.json({"type": "error", "error": {"type": kind, "message": message}}, status)
