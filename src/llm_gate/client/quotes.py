"""What a chat would cost, and whether it may be had: the preflight of one call, for callers of the library."""

from datetime import datetime

from llm_gate.bootstrap import Gateway
from llm_gate.client.answers import CallQuote, costs
from llm_gate.domain.access import Caller
from llm_gate.domain.preflight import Asked, Line, Preflight
from llm_gate.domain.provider import Target
from llm_gate.domain.requests import ChatRequest
from llm_gate.engine.estimate import size_of_chat
from llm_gate.engine.quotes import Quoting


async def quoted(gateway: Gateway, request: ChatRequest, caller: Caller, at: datetime) -> CallQuote:
    """Look at a call without making it, once with the input as it likely counts and once as it counts at most.

    Raises:
        NotFound: nothing of that name is known.
        InvalidRequest: the name is ambiguous, or the model does something else.
        StoreUnavailable: the ledger cannot be reached.
    """
    gate = gateway.gate
    directory = gate.directory_of(caller.tenant)
    target = directory.resolve(request.model, "chat", at.date(), {})[0]
    size = size_of_chat(request, target)
    quoting = Quoting(standings=gate.access, admission=gate.admission, quotes=gateway.stores.quotes)
    found: list[Preflight] = []
    for tokens in (size.likely_input, size.most_input):
        asked = Asked(
            operation="chat",
            model=request.model or None,
            input_tokens=tokens,
            max_tokens=request.max_output_tokens,
        )
        found.append(await quoting.look([asked], caller, directory, at))
    likely, most = found
    return _told(likely.lines[0], most.lines[0], target, likely.standing.plan.name)


def _told(likely: Line, most: Line, target: Target, plan: str) -> CallQuote:
    refusal = likely.refusal
    return CallQuote(
        allowed=refusal is None,
        provider=target.provider,
        model=target.model.name,
        plan=plan,
        code=None if refusal is None else refusal.code,
        reason=None if refusal is None else refusal.message,
        **costs(likely.cost, most.cost),
    )
