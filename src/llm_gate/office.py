"""Puts together what stands beside the calls: reports, subscriptions, administration, the delivery of alerts."""

from secrets import token_bytes

from msgspec import Struct

from llm_gate.bootstrap import Gateway, ids_of, now_ms
from llm_gate.domain.conditions import NoticeLine
from llm_gate.domain.reports import AlertLine, Alerts
from llm_gate.domain.secret import Secret
from llm_gate.engine.admin import Admin
from llm_gate.engine.alerts import AlertDelivery, Webhook, message
from llm_gate.engine.keys import Keys
from llm_gate.engine.notices import notice_message
from llm_gate.engine.reports import UserReports
from llm_gate.engine.subscriptions import Subscriptions
from llm_gate.settings import Settings
from llm_gate.storage.alerts import StoredAlerts
from llm_gate.storage.checks import LedgerCheck, ledger_check
from llm_gate.storage.notices import StoredNotices
from llm_gate.storage.opening import Store
from llm_gate.storage.reports import StoredReports
from llm_gate.transport.webhook import WebhookMessenger


class Office(Struct, frozen=True, kw_only=True):
    """The use-cases beside the calls, over one store."""

    store: Store
    users: UserReports
    alerts: Alerts
    admin: Admin
    delivery: AlertDelivery[AlertLine]
    notices: AlertDelivery[NoticeLine]

    async def start(self) -> None:
        """Begin to deliver alerts."""
        await self.delivery.start()
        await self.notices.start()

    def reload(self, settings: Settings) -> None:
        """Go by other settings."""
        self.delivery.webhook = self.notices.webhook = webhook_of(settings, self.store)

    async def close(self) -> None:
        """Deliver no more."""
        await self.delivery.close()
        await self.notices.close()


def open_office(gateway: Gateway, settings: Settings) -> Office | None:
    """Put the office of a gateway together; None where nothing is stored beyond the process."""
    stores = gateway.stores
    store = stores.opened
    if store is None:
        return None
    access, new_id = gateway.gate.access, ids_of(stores.owner)
    reports, alerts = StoredReports(store.database), StoredAlerts(store.database)

    async def check_ledger() -> LedgerCheck:
        return await store.database.survey(ledger_check)

    return Office(
        store=store,
        users=UserReports(reports=reports, ledger=stores.ledger, standings=access, now_ms=now_ms),
        alerts=alerts,
        admin=Admin(
            keys=Keys(
                administration=store.administration,
                key_hash=store.pepper.key_hash,
                now_ms=now_ms,
                new_id=new_id,
                randomness=token_bytes,
            ),
            subscriptions=Subscriptions(
                directives=store.directives,
                administration=store.administration,
                usage=reports,
                default_plan=settings.plans.default,
                now_ms=now_ms,
                new_id=new_id,
                zone=access.rules.zone,
            ),
            administration=store.administration,
            directives=store.directives,
            reports=reports,
            check_ledger=check_ledger,
            now_ms=now_ms,
        ),
        delivery=AlertDelivery(
            alerts=alerts,
            write=message,
            messenger=WebhookMessenger(),
            webhook=webhook_of(settings, store),
            now_ms=now_ms,
        ),
        notices=AlertDelivery(
            alerts=StoredNotices(store.database, new_id=new_id),
            write=notice_message,
            messenger=WebhookMessenger(),
            webhook=webhook_of(settings, store),
            now_ms=now_ms,
        ),
    )


def webhook_of(settings: Settings, store: Store) -> Webhook | None:
    """Return where alerts go; without a secret of its own they are signed with one derived from the pepper."""
    url = settings.alerts.webhook_url
    if url is None:
        return None
    given: Secret | None = settings.webhook_secret
    secret = store.pepper.derive("webhooks") if given is None else given.reveal().encode()
    return Webhook(url=url, secret=secret)
