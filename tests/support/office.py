"""An operator's desk before a running gateway: keys, plans and subscriptions, as the admin API has them."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

from support.forking import clean_environment, run_command
from support.gateway import RunningGateway
from support.web import WebAnswer, call

ADMIN = "/llm-gate/admin/v1"


def command(gateway: RunningGateway, *arguments: str) -> subprocess.CompletedProcess:
    """Run a command on the store of a gateway."""
    where = ("--data-dir", str(gateway.folder / "data"), "--no-env-file")
    return run_command(*arguments, *where, folder=gateway.folder, environment=clean_environment())


def bearer(key: str, **headers: str) -> dict[str, str]:
    """Return the headers of a call with a key."""
    return {"Authorization": f"Bearer {key}", **headers}


class Desk:
    """The operator, with the first key of the store."""

    def __init__(self, gateway: RunningGateway) -> None:
        made = command(gateway, "keys", "create", "--admin", "--all-tenants", "--json")
        assert made.returncode == 0, made.stderr
        self.url = gateway.url
        self.key = json.loads(made.stdout)["key"]
        self.until(lambda: self.ask("/keys").status == 200)

    @staticmethod
    def until(holds: Callable[[], bool]) -> None:
        """Wait until a change has come into effect; within a second it must."""
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline, "the change did not come into effect"
            time.sleep(0.05)

    def ask(
        self, path: str, body: Any = None, *, key: str | None = None, method: str | None = None
    ) -> WebAnswer:
        """Call the admin API, as the operator unless another key is given."""
        return call(self.url, f"{ADMIN}{path}", body, bearer(key or self.key), method=method)

    def do(self, path: str, body: Any = None) -> Any:
        """Call the admin API and return its answer, which must be a good one."""
        answer = self.ask(path, body)
        assert answer.status == 200, answer.body
        return answer.json

    def key_for(self, tenant: str = "default", *, client: str = "shop", **fields: Any) -> str:
        """Make a key."""
        return self.do("/keys", {"client_id": client, "tenant": tenant, **fields})["key"]
