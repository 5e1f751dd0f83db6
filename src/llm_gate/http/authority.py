"""On whose word something is changed over the network."""

from llm_gate.domain.errors import NotAllowed, NotAuthenticated
from llm_gate.engine.keys import Authority
from llm_gate.http.exchange import Exchange


def authority_of(exchange: Exchange) -> Authority:
    """Return on whose word the caller acts.

    Raises:
        NotAuthenticated: no key was presented, which is not enough here even where it is elsewhere.
        NotAllowed: the key is no administrator's.
    """
    key = exchange.identity.key
    if key is None:
        raise NotAuthenticated(
            "this needs an administrator's key: make one with `llm-gate keys create --admin`"
        )
    if "admin" not in exchange.identity.scopes:
        raise NotAllowed("the key lacks the scope 'admin'", code="scope_missing")
    return Authority(key=key)
