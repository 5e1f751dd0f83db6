"""Logs: one line per event on stderr, JSON or pretty, with an allow-list of fields; never a key."""

import logging
import sys
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Literal, TextIO

import msgspec
import structlog

from llm_gate.domain.money import format_usd

FIELDS = frozenset(
    {
        "alert",
        "attempts",
        "cache",
        "cause",
        "client",
        "correlation_id",
        "cost_usd",
        "error",
        "error_code",
        "job",
        "event",
        "exception",
        "first_event_ms",
        "input_tokens",
        "level",
        "logger",
        "method",
        "model",
        "output_tokens",
        "path",
        "prompt",
        "provider",
        "request_id",
        "status",
        "stream",
        "subject",
        "timestamp",
        "total_ms",
        "upstream_ms",
        "upstream_status",
        "user",
        "vendor_cost_usd",
    }
)
"""Whatever else somebody puts into a log call is left out."""

ROOT = "llm_gate"

EventDict = MutableMapping[str, Any]
AccessLog = Callable[[Mapping[str, Any]], None]


def configure_logging(
    *,
    level: str,
    provider_levels: Mapping[str, str],
    form: Literal["auto", "json", "pretty"],
    stream: TextIO | None = None,
) -> AccessLog:
    """Set the loggers up and return the writer of the one line per request.

    `provider_levels` set the level of `llm_gate.provider.<name>`. "auto" is pretty on a terminal.
    """
    out = stream or sys.stderr
    pretty = form == "pretty" or (form == "auto" and out.isatty())
    renderer = _pretty(out) if pretty else _json
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_logger_name,
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(),
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _stamp,
                _allow_listed,
                renderer,
            ],
        )
    )
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(level.upper())
    # A level that the configuration no longer names must not outlive a reload.
    for name in list(logging.root.manager.loggerDict):
        if name.startswith(f"{ROOT}.provider."):
            logging.getLogger(name).setLevel(logging.NOTSET)
    for provider, provider_level in provider_levels.items():
        logging.getLogger(f"{ROOT}.provider.{provider}").setLevel(provider_level.upper())
    if not logging.getLogger(f"{ROOT}.access").isEnabledFor(logging.INFO):
        return _silent
    return _AccessLines(out, renderer)


class _AccessLines:
    """Writes the line of a request; straight to the stream, since there is one for every request."""

    def __init__(self, out: TextIO, renderer: Callable[[Any, str, EventDict], str]) -> None:
        self._out = out
        self._renderer = renderer

    def __call__(self, fields: Mapping[str, Any]) -> None:
        line: EventDict = {
            "timestamp": _now(),
            "level": "info",
            "logger": f"{ROOT}.access",
            "event": "request",
        }
        line.update((name, value) for name, value in fields.items() if value is not None and name in FIELDS)
        cost_nanos = fields.get("cost_nanos")
        if cost_nanos is not None:
            line["cost_usd"] = format_usd(cost_nanos)
        vendor_cost_nanos = fields.get("vendor_cost_nanos")
        if vendor_cost_nanos is not None:
            line["vendor_cost_usd"] = format_usd(vendor_cost_nanos)
        self._out.write(self._renderer(None, "", line) + "\n")
        self._out.flush()


def _silent(_fields: Mapping[str, Any]) -> None:
    """Write nothing: the level is above that of requests."""


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamp(_logger: Any, _name: str, event: EventDict) -> EventDict:
    event["timestamp"] = _now()
    return event


def _allow_listed(_logger: Any, _name: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if name in FIELDS}


def _json(_logger: Any, _name: str, event: EventDict) -> str:
    return msgspec.json.encode(event).decode()


def _pretty(out: TextIO) -> Callable[[Any, str, EventDict], str]:
    console = structlog.dev.ConsoleRenderer(colors=out.isatty())
    return lambda logger, name, event: str(console(logger, name, event))
