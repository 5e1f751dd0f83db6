"""Builders of targets, deployments and replies, so that a test states only what it is about."""

import json
from typing import Any

from llm_gate.dialects import openai
from llm_gate.domain.catalog import Model, ProviderSpec
from llm_gate.domain.provider import Auth, Deployment, HttpReply, Provider, Target
from llm_gate.domain.secret import Secret

CREDENTIAL = "sk-testDoNotShowThis0123456789"


def make_target(
    *,
    provider: str = "vendor",
    codecs: Provider = openai.provider,
    base_url: str = "https://vendor.test/v1",
    spec: ProviderSpec | None = None,
    model: str = "model-a",
    api_version: str | None = None,
    control: str | None = None,
    **model_fields: Any,
) -> Target:
    """Return a target with a credential; `model_fields` are further fields of its model."""
    fields: dict[str, Any] = {"label": model, "description": "", "operations": ("chat",), **model_fields}
    return Target(
        deployment=Deployment(
            provider=provider,
            base_url=base_url,
            auth=Auth(kind="bearer", secret=Secret(CREDENTIAL)),
            spec=spec or ProviderSpec(dialect="openai"),
            codecs=codecs,
            api_version=api_version,
        ),
        model=Model(id=f"{provider}/{model}", provider=provider, name=model, **fields),
        control=control,
    )


def make_reply(body: object, status: int = 200, **headers: str) -> HttpReply:
    """Return a reply; anything but bytes is written as JSON, and header names get their dashes."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpReply(
        status=status,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
        body=raw,
    )
