"""Settings: what llm-gate.toml, a .env file, the environment and the command line say, checked and merged."""

from llm_gate.settings.faults import Place, SettingsFaults
from llm_gate.settings.lines import line_of
from llm_gate.settings.loading import CONFIG_FILE, ENV_FILE, load_settings, locate
from llm_gate.settings.records import (
    ApiSettings,
    Environment,
    LoggingSettings,
    ServerSettings,
    Settings,
    TimeoutSettings,
)

__all__ = [
    "CONFIG_FILE",
    "ENV_FILE",
    "ApiSettings",
    "Environment",
    "LoggingSettings",
    "Place",
    "ServerSettings",
    "Settings",
    "SettingsFaults",
    "TimeoutSettings",
    "line_of",
    "load_settings",
    "locate",
]
