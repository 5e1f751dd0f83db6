"""What the gateway says on the terminal when it is ready: what it is, who answers, and three commands to try."""

from datetime import UTC, datetime
from urllib.parse import urlsplit

from llm_gate import __version__
from llm_gate.domain.errors import GateError
from llm_gate.engine.resolve import Directory
from llm_gate.settings import Settings

_COMMANDS = """
Try it (copy and paste):

  curl -s {url}{api}/v1/chat{key_flag} \\
    -H 'Content-Type: application/json' -H 'X-User-Id: me' -H 'client_id: terminal' \\
    -H 'X-Correlation-Id: 7f1c2c1e-6f0e-4b53-9a43-0d4c4a1f5b10' \\
    -d '{{"prompt": {{"messages": [{{"role": "user", "content": "Hello"}}]}}}}'

  curl -s {url}/v1/chat/completions{key_flag} -H 'Content-Type: application/json' \\
    -d '{{"model": "default", "messages": [{{"role": "user", "content": "Hello"}}]}}'

  python -c 'import os; from openai import OpenAI
client = OpenAI(base_url="{url}/v1", api_key=os.environ.get("LLM_GATE_API_KEY", "none"))
print(client.chat.completions.create(model="default", messages=[{{"role": "user", "content": "Hello"}}])
      .choices[0].message.content)'
"""


_MOST_SQLITE_WORKERS = 4
"""With more processes than these, waiting for each other's writes costs more than a database server would."""


def banner(settings: Settings, directory: Directory, *, port: int, has_keys: bool) -> str:
    """Write the text; `port` is the one really listened on, `has_keys` tells whether a key was ever issued."""
    host = settings.server.host
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    api = settings.api.path
    lines = [
        f"LLM Gate {__version__} listens on {url}",
        f"  documentation  {url}{api}/docs",
        f"  providers      {_providers(directory)}",
        f"  default model  {_default(directory)}",
        f"  access         {_access(settings, has_keys=has_keys)}",
        f"  plans          default plan {settings.plans.default!r} for users without a subscription",
        f"  store          {_store(settings)}",
    ]
    workers = settings.server.workers
    if settings.database_url is None and workers > _MOST_SQLITE_WORKERS:
        lines.append(
            f"  NOTE           {workers} processes share one SQLite file: PostgreSQL is better for more than "
            f"{_MOST_SQLITE_WORKERS} (LLM_GATE_DATABASE_URL)"
        )
    first = directory.named[0] if directory.named else None
    if first is not None and not directory.is_enabled(first):
        lines.append(
            f"  NOTE           provider {first!r} is preferred but not configured: {directory.hint(first)}"
        )
    if not settings.verify_tls:
        lines.append(
            "  TLS            certificates of providers on loopback and private addresses are NOT verified "
            "(HTTPX_CLIENT_VERIFY); all others are"
        )
    needs_key = settings.api_key is not None or has_keys
    commands = _COMMANDS.format(
        url=url,
        api=api,
        key_flag=' -H "Authorization: Bearer $LLM_GATE_API_KEY"' if needs_key else "",
    )
    return "\n".join(lines) + "\n" + commands


def _providers(directory: Directory) -> str:
    return ", ".join(sorted(directory.deployments)) or "none"


def _default(directory: Directory) -> str:
    try:
        target = directory.resolve("", "chat", datetime.now(UTC).date(), {})[0]
    except GateError:
        return "none"
    note = " (synthetic answers: set a provider's key to reach a real model)"
    return target.name + (note if target.deployment.spec.synthetic else "")


def _access(settings: Settings, *, has_keys: bool) -> str:
    if has_keys:
        return "callers must send a key (`llm-gate keys create` makes one)"
    if settings.api_key is not None:
        return "callers must send the key of LLM_GATE_API_KEY"
    return "local mode: open to this machine, no key needed"


def _store(settings: Settings) -> str:
    """Say where the data is, without the user and password of an address."""
    if settings.database_url is None:
        return f"SQLite in {settings.server.data_dir.absolute()}"
    try:
        parts = urlsplit(settings.database_url.reveal())
        place = f"{parts.hostname or 'localhost'}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        return "PostgreSQL"
    return f"PostgreSQL at {place}"
