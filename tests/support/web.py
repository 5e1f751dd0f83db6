"""Plain HTTP calls, as bare as curl: exactly these headers, exactly these bytes."""

import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 15.0

TRUSTS_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For `httpx` without TLS: to load the certificates to trust takes it longer than a call does."""


@dataclass(frozen=True)
class WebAnswer:
    """An answer; header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The data of each server-sent event, as JSON where it is JSON."""
        found = []
        for block in self.body.decode().split("\n\n"):
            lines = [line[5:].strip() for line in block.split("\n") if line.startswith("data:")]
            if lines:
                text = "\n".join(lines)
                found.append(json.loads(text) if text[:1] in "{[" and text != "[DONE]" else text)
        return found


def call(
    url: str,
    path: str,
    body: Any = None,
    headers: Mapping[str, str] = {},
    *,
    method: str | None = None,
) -> WebAnswer:
    """Make a call; a body that is not bytes is sent as JSON with its content type."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    sent = dict(headers)
    data = body
    if body is not None and not isinstance(body, bytes):
        data = json.dumps(body).encode()
    if body is not None and not any(name.lower() == "content-type" for name in sent):
        sent["Content-Type"] = "application/json"
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, data, sent)
        response = connection.getresponse()
        named = {name.lower(): value for name, value in response.getheaders()}
        return WebAnswer(status=response.status, headers=named, body=response.read())
    finally:
        connection.close()
