"""Settings: what llm-gate.toml, a .env file, the environment and the command line say, checked and merged."""

from llm_gate.settings.faults import Place, SettingsFaults, lies_within
from llm_gate.settings.lines import line_of
from llm_gate.settings.loading import CONFIG_FILE, ENV_FILE, load_settings, locate, locate_variable
from llm_gate.settings.records import (
    ApiSettings,
    CooldownSettings,
    Environment,
    LoggingSettings,
    PlanSettings,
    RetrySettings,
    ServerSettings,
    Settings,
    TimeoutSettings,
)
from llm_gate.settings.variables import primary_variable

__all__ = [
    "CONFIG_FILE",
    "ENV_FILE",
    "ApiSettings",
    "CooldownSettings",
    "Environment",
    "LoggingSettings",
    "Place",
    "PlanSettings",
    "RetrySettings",
    "ServerSettings",
    "Settings",
    "SettingsFaults",
    "TimeoutSettings",
    "lies_within",
    "line_of",
    "load_settings",
    "locate",
    "locate_variable",
    "primary_variable",
]
