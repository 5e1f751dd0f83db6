"""Puts the credential on a request, in a header and nowhere else."""

from llm_gate.domain.provider import Auth


def auth_headers(auth: Auth) -> dict[str, str]:
    """Return the header that carries the credential; none when there is nothing to carry."""
    if auth.secret is None or auth.kind == "none":
        return {}
    if auth.kind == "bearer":
        return {"authorization": f"Bearer {auth.secret.reveal()}"}
    return {auth.header or "x-api-key": auth.secret.reveal()}
