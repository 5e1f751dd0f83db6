"""Fake providers that fail in every way a vendor can, by switches that are set while calls are under way.

They run as one process of their own, need nothing but the standard library and know nothing of the gateway:

    with running_faulty("first", "second") as faulty:
        ... providers with base_url = faulty.url("first") + "/v1" (openai), "" (anthropic) or "/v1beta" (gemini) ...
        faulty.will("first", fault="status", status=503)
        faulty.heal("first")
        faulty.attempts()

Each provider has a port, and one that speaks TLS. What `will` says is for every request to that provider until it is
told otherwise; a request whose text is `call:NAME {...}` (see `wire.text_of`) orders for itself alone. Orders:

    words, pause_s, delay_s   the usual answer: its length, the time before each piece of a stream, and before the head
    usage       "missing", "null", "negative", "absurd", "twice" (U13)
    crlf, split True: line ends as CR LF; pieces cut anywhere, in the middle of characters too (U10, and harmless)
    only        what a text orders is for the provider of that name alone
    share       which part of the requests the fault is for; 1 unless said
    after       pieces of a stream that go out before a fault of its body
    fault       one of these:

| U1 | limited: `status` 429 or 503, and a wish for patience of `wish_s`, in one of the `forms` after the other:
  seconds, ms, date, google, hours, garbage |
| U2 | status: `status`, `code` |
| U3 | refuse: nobody listens; tls_garbage, tls_hang, tls_untrusted (on the port of TLS) |
| U4 | no_headers |
| U5, U6 | stall: no more bytes; comments: signs of life only |
| U7 | trickle: one byte each `pause_s` |
| U8 | rst; fin: a clean end of the body without its last event; cut: the connection closes |
| U9 | error_event |
| U10 | malformed, giant |
| U11 | html, empty, null, wrong_type |
| U12 | endless, bomb, false_length |
| U14 | late: the whole answer, `delay_s` after nobody waits any more |
| U15 | redirect: to a trap that counts who follows |

A wish for patience is watched: an attempt for the same model before its end, by this process's own clock, is an
`undercut`; for GRACE_S after the wish was sent it is only `crossed`, for it may have been on its way.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.faulty_process import Attempt

CERTIFICATE = Path(__file__).parent / "tls" / "certificate.pem"
"""What providers show on their ports of TLS."""

_BASES = {"openai": "/v1", "anthropic": "", "gemini": "/v1beta"}


class Faulty:
    """The fake providers as a test sees them."""

    def __init__(self, ports: dict[str, Any]) -> None:
        self._control = ports["control"]
        self._ports = ports["names"]
        self.trap_url = f"http://127.0.0.1:{ports['trap']}"

    def url(self, name: str) -> str:
        """Return where a provider listens."""
        return f"http://127.0.0.1:{self._ports[name][0]}"

    def tls_url(self, name: str) -> str:
        """Return where a provider speaks TLS."""
        return f"https://127.0.0.1:{self._ports[name][1]}"

    def table(
        self,
        name: str,
        *,
        dialect: str = "openai",
        tls: bool = False,
        models: Iterable[str] = ("m",),
        more: str = "",
    ) -> str:
        """Return a provider's table for llm-gate.toml."""
        base = (self.tls_url if tls else self.url)(name) + _BASES[dialect]
        listed = ", ".join(f'{{ name = "{model}", operations = ["chat"] }}' for model in models)
        trusted = f'ca_file = "{CERTIFICATE}"' if tls else ""
        return f"""
            [providers.{name}]
            dialect = "{dialect}"
            base_url = "{base}"
            auth = {{ kind = "none" }}
            models = [{listed}]
            {trusted}
            {more}
        """

    def will(self, name: str, **orders: Any) -> None:
        """Say what a provider does from now on, in place of what was said before."""
        self._ask("POST", f"/will/{name}", orders)

    def heal(self, *names: str) -> None:
        """Let providers answer well again; all of them where none is named."""
        for name in names or self._ports:
            self.will(name)

    def attempts(self, since: int = 0) -> list[Attempt]:
        """Return what arrived, from the number `since` on."""
        return [Attempt(**each) for each in self._ask("GET", f"/attempts/{since}")]

    def counts(self) -> dict[str, Any]:
        """Return counts by provider: asked, open, connections, wishes, undercut, crossed; and `trapped`."""
        return self._ask("GET", "/counts")

    def asked(self, name: str) -> int:
        """Return how many requests a provider got so far."""
        return self.counts()[name]["asked"]

    def forget(self) -> None:
        """Forget the attempts and the counts."""
        self._ask("POST", "/forget")

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._control, timeout=30)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            assert answer.status == 200, (method, path, answer.status)
            return json.loads(answer.read())
        finally:
            connection.close()


@contextmanager
def running_faulty(*names: str, other_certificate: tuple[Path, Path] | None = None) -> Iterator[Faulty]:
    """Run fake providers on free ports of 127.0.0.1; the other certificate (and key) is for tls_untrusted."""
    command = [sys.executable, "-m", "support.faulty_process", *names]
    if other_certificate is not None:
        command += ["--other", *map(str, other_certificate)]
    tests = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tests) as process:
        try:
            line = process.stdout.readline()
            assert line.startswith("{"), "the fake providers did not start"
            yield Faulty(json.loads(line))
        finally:
            process.kill()
