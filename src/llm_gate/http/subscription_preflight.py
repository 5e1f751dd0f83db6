"""`POST /api/subscription/preflight-check`: may these operations be done, and what will they cost?"""

from msgspec import Struct

from llm_gate.dialects.subscription_faults import SubscriptionFault
from llm_gate.dialects.subscription_preflight import (
    PreflightBody,
    PreflightReply,
    decode_preflight,
    encode_preflight,
)
from llm_gate.domain.errors import NotAuthenticated
from llm_gate.engine.gate import Gate
from llm_gate.engine.quotes import Quoting
from llm_gate.http.exchange import Exchange, Reply
from llm_gate.http.routes import Parameter, Route
from llm_gate.http.subscription_errors import SubscriptionSurface

PATH = "/api/subscription/preflight-check"


def require_user(exchange: Exchange) -> None:
    """Refuse a request that does not say for whom it is made.

    Raises:
        NotAuthenticated: the key is bound to nobody, and no X-User-Id is sent.
    """
    if exchange.identity.user is None and not exchange.headers.get("x-user-id"):
        raise NotAuthenticated(
            "say whose subscription this is about: send X-User-Id, or a key bound to a user"
        )


class PreflightRoutes(Struct, frozen=True, kw_only=True):
    """The endpoint."""

    gate: Gate
    quoting: Quoting

    async def check(self, exchange: Exchange) -> None:
        """Look at the operations; a denial is an answer like any other."""
        require_user(exchange)
        directory = self.gate.directory
        body, asked = decode_preflight(await exchange.body(), directory)
        found = await self.quoting.look(asked, exchange.caller(), directory, exchange.received_at)
        await exchange.reply(Reply(body=encode_preflight(body, found)))

    def routes(self) -> list[Route]:
        """Return the row."""
        return [
            Route(
                method="POST",
                path=PATH,
                endpoint=self.check,
                surface=SubscriptionSurface(),
                summary="Say whether planned operations may be done, and what they will cost",
                tag="Subscription",
                request_type=PreflightBody,
                response_type=PreflightReply,
                error_type=SubscriptionFault,
                parameters=(
                    Parameter(
                        name="X-User-Id",
                        place="header",
                        description="The user it is about; not needed with a key that is bound to one",
                        required=False,
                    ),
                ),
                example={
                    "operations": [
                        {"provider": "image", "operation_type": "image_generation", "count": 2},
                        {"provider": "video", "operation_type": "video_generation", "duration": 5},
                    ]
                },
            )
        ]
