"""Chooses what makes traces: OpenTelemetry where its own variables name a collector, else nothing."""

import logging
import os
from collections.abc import Mapping

from llm_gate.domain.tracing import NoTracer, Tracer

_ADDRESS = "OTEL_EXPORTER_OTLP_ENDPOINT"
_KINDS = ("TRACES", "METRICS")
_SPOKEN = "http/protobuf"
_SHOWN_CHARS = 32
_logger = logging.getLogger("llm_gate.telemetry")


def open_tracer(environment: Mapping[str, str]) -> Tracer:
    """Return what sends traces to the collector that the variables name, or what makes none."""
    wanted = {
        name: value.strip()
        for name, value in environment.items()
        if name.startswith("OTEL_") and value.strip()
    }
    sent = frozenset(kind for kind in _KINDS if _is_sent(wanted, kind))
    if not sent or wanted.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NoTracer()
    if (spoken := _foreign_protocol(wanted)) is not None:
        _logger.warning(
            "no traces: collectors are spoken to by %s, not by %s", _SPOKEN, spoken[:_SHOWN_CHARS]
        )
        return NoTracer()
    try:
        from llm_gate.telemetry.otlp import OpenTelemetry  # noqa: PLC0415 - an optional driver
    except ImportError:
        _logger.warning(
            "no traces: a collector is named (%s), but what speaks to it is not installed:"
            " pip install 'llm-gate[otel]'",
            _ADDRESS,
        )
        return NoTracer()
    # The kit reads the process's own variables; those of an `.env` file are not among them.
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    return OpenTelemetry(wanted, sent)


def _is_sent(wanted: Mapping[str, str], kind: str) -> bool:
    has_address = _ADDRESS in wanted or f"OTEL_EXPORTER_OTLP_{kind}_ENDPOINT" in wanted
    return has_address and wanted.get(f"OTEL_{kind}_EXPORTER", "otlp") == "otlp"


def _foreign_protocol(wanted: Mapping[str, str]) -> str | None:
    names = ("OTEL_EXPORTER_OTLP_PROTOCOL", *(f"OTEL_EXPORTER_OTLP_{kind}_PROTOCOL" for kind in _KINDS))
    return next((wanted[name] for name in names if wanted.get(name, _SPOKEN) != _SPOKEN), None)
