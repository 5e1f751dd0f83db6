"""Puts a gateway together: its stores, who may call, what lets calls in, and the gate itself."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import count
from secrets import token_bytes, token_hex
from time import time_ns
from typing import TypedDict
from uuid import uuid4

from msgspec import Struct

from llm_gate.bootstrap.cache_rules import cache_rules, unknown_plan
from llm_gate.bootstrap.caching import open_cache
from llm_gate.bootstrap.places import is_loopback
from llm_gate.bootstrap.reach import cooldown_rules, load_working
from llm_gate.domain.blobs import Blobs, Links
from llm_gate.domain.conditions import SharedConditions
from llm_gate.domain.errors import GateFault, StoreUnavailable
from llm_gate.domain.fine_tuning import TunedModel
from llm_gate.domain.plans import UNLIMITED
from llm_gate.domain.secret import Secret
from llm_gate.domain.stores import Answers, Directives, Ledger, Quotes, ShortWindows
from llm_gate.engine.access import Access, AccessRules
from llm_gate.engine.admission import Admission
from llm_gate.engine.alerts import Messenger
from llm_gate.engine.batches import BatchDesk
from llm_gate.engine.caching import Caching
from llm_gate.engine.files import FileDesk
from llm_gate.engine.fine_tuning import TuningDesk
from llm_gate.engine.fleet import Budgets, Fleet
from llm_gate.engine.gate import Gate
from llm_gate.engine.job_words import JobTeller
from llm_gate.engine.job_work import JobWork
from llm_gate.engine.jobs import JobDesk
from llm_gate.engine.keeping import Keeping
from llm_gate.engine.media import MediaDesk
from llm_gate.engine.notices import OperatorNotices
from llm_gate.engine.resolve import Directory
from llm_gate.engine.tuned_models import TrainedShelf, by_tenant
from llm_gate.engine.working import Working
from llm_gate.measures import BytesMeasures
from llm_gate.measures.tokens import ShippedTokenizers
from llm_gate.schemas import SchemaChecks
from llm_gate.settings import Settings
from llm_gate.storage.answers import StoredAnswers
from llm_gate.storage.blobs import FolderBlobs
from llm_gate.storage.directives import any_key, stored_plans
from llm_gate.storage.files import StoredFiles
from llm_gate.storage.jobs import StoredJobs
from llm_gate.storage.ledger import StoredLedger
from llm_gate.storage.memory import MemoryLedger, NoDirectives
from llm_gate.storage.notices import StoredNotices
from llm_gate.storage.opening import Store, open_store
from llm_gate.storage.plans import apply_plans
from llm_gate.storage.quotes import StoredQuotes
from llm_gate.storage.tuned_models import StoredTunedModels
from llm_gate.transport.fetch import GuardedFetcher

_logger = logging.getLogger("llm_gate.credentials")


class Stores(Struct, frozen=True, kw_only=True):
    """Where the gateway keeps what it must not forget, behind its ports.

    `opened` is the database with all that belongs to it; None where everything ends with the process, which is for
    measuring. `owner` names this process.
    """

    owner: str
    ledger: Ledger
    directives: Directives
    digest: Callable[[str], bytes | None]
    answers: Answers | None = None
    short: ShortWindows | None = None
    conditions: SharedConditions | None = None
    quotes: Quotes
    opened: Store | None = None

    def has_keys(self) -> bool:
        """Tell whether a virtual key was ever issued.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        return self.opened is not None and self.opened.database.ask(any_key)

    async def close(self) -> None:
        """Write what is left to write, and close every connection."""
        await self.ledger.close()
        if self.short is not None:
            await self.short.close()
        if self.opened is not None:
            self.opened.close()


class Gateway:
    """A gateway ready to work. Its connections belong to the event loop in which they are first used."""

    def __init__(
        self,
        *,
        gate: Gate,
        stores: Stores,
        notices: OperatorNotices,
        schemas: SchemaChecks,
        keeping: Keeping,
        files: FileDesk | None = None,
        tuning: TuningDesk | None = None,
        trained: TrainedShelf | None = None,
    ) -> None:
        self.gate = gate
        self.keeping = keeping
        self.tokenizers = ShippedTokenizers()
        self.files = files
        self.tuning = tuning
        self.batches: BatchDesk | None = None
        if trained is not None:
            trained.on_new.append(self.read_tuned_models)
        self.schemas = schemas
        self.notices = notices
        self.stores = stores
        self._credentials: dict[str, dict[str, Secret]] = {}
        self._tuned: Mapping[str, tuple[TunedModel, ...]] = {}
        gate.access.on_change += [self._read_credentials, self.read_tuned_models]

    @property
    def directory(self) -> Directory:
        """What can be named and reached now."""
        return self.gate.directory

    async def start(self) -> None:
        """Open the stores, and begin with what goes on beside the calls.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        await self.stores.ledger.start()
        await self.gate.access.start()
        self.gate.start()
        self.notices.start()
        self.keeping.start()
        if self.batches is not None:
            self.batches.work.start()

    def reload(self, settings: Settings, working: Working) -> None:
        """Serve from other settings, of which `working` was made; calls under way keep those they began with."""
        working.tenants.use(self._credentials)
        working.tenants.use_tuned(self._tuned)
        self.gate.replace(working)
        self.gate.fleet.use(cooldown_rules(settings), budgets_of(settings))
        self.gate.access.rules = access_rules(settings)
        caching = self.gate.caching
        caching.rules = cache_rules(settings)
        if caching.store is None:
            # What is kept stays where it is, also while nothing is looked for.
            caching.store = open_cache(settings, self.stores)

    async def _read_credentials(self) -> None:
        """Take over the vendors' credentials that tenants have of their own."""
        if self.stores.opened is None:
            return
        found: dict[str, dict[str, Secret]] = {}
        try:
            stored = await self.stores.opened.credentials.load_all()
        except StoreUnavailable:
            raise
        except GateFault as fault:
            # One that was altered must not keep all others from being followed.
            _logger.error("stored credentials cannot be used", extra={"error": fault.message})  # noqa: TRY400
            return
        for (tenant, provider), secret in stored.items():
            found.setdefault(tenant, {})[provider] = secret
        self._credentials = found
        self.gate.use_credentials(found)

    async def read_tuned_models(self) -> None:
        """Take over the models that tenants have trained.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        if self.stores.opened is None:
            return
        self._tuned = by_tenant(await StoredTunedModels(self.stores.opened.database).load_all())
        self.gate.working.tenants.use_tuned(self._tuned)

    async def reload_plans(self, settings: Settings) -> None:
        """Make the plans of the configuration file what it says now.

        Raises:
            StoreUnavailable: the store cannot be reached.
        """
        opened = self.stores.opened
        if opened is not None:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, apply_plans, opened.database, settings.plans.custom, now_ms())
            names = {plan.name for plan in await self.stores.directives.plans()} | {UNLIMITED}
            if (fault := unknown_plan(settings, names)) is not None:
                raise GateFault(fault)

    async def close(self) -> None:
        """Close every connection to providers, write what is left to write, and close the stores."""
        try:
            if self.batches is not None:
                await self.batches.work.close()
            await self.gate.close()
            await self.gate.media.fetcher.close()
            await self.keeping.close()
            await self.gate.access.close()
            await self.notices.close()
        finally:
            # Whatever else fails, the ledger is written and its lease given back.
            await self.stores.close()


def build(settings: Settings, *, instance_id: str | None = None, stores: Stores | None = None) -> Gateway:
    """Put a gateway together; `instance_id` names it to the gateways it calls, `stores` stand in for those it opens.

    Raises:
        CatalogFaults: the providers, models or aliases of the configuration are faulty.
        GateFault: the stores cannot be opened.
    """
    working = load_working(settings)
    stores = stores or open_stores(settings)
    access = Access(
        directives=stores.directives, digest=stores.digest, rules=access_rules(settings), now_ms=now_ms
    )
    admission = Admission(
        ledger=stores.ledger,
        plans=access,
        owner=stores.owner,
        new_id=ids_of(stores.owner),
        now_ms=now_ms,
        short=stores.short,
    )
    opened = stores.opened
    book = None if opened is None else StoredNotices(opened.database, new_id=ids_of(stores.owner))
    notices = OperatorNotices(book=book, now_ms=now_ms)
    fleet = Fleet(
        rules=cooldown_rules(settings),
        budgets=budgets_of(settings),
        notices=notices,
        shared=stores.conditions,
    )
    schemas = SchemaChecks()
    fetcher = GuardedFetcher(trusted_hosts=settings.media.trusted_hosts)
    measures = BytesMeasures()
    caching = Caching(store=open_cache(settings, stores), rules=cache_rules(settings), now_ms=now_ms)
    gate = Gate(
        working=working,
        instance_id=instance_id or uuid4().hex[:16],
        check=schemas,
        access=access,
        admission=admission,
        fleet=fleet,
        caching=caching,
        media=lambda pipeline: MediaDesk(pipeline, fetcher=fetcher, measures=measures),
    )
    keeping = open_keeping(settings, stores)
    keeping.on_sweep.append(caching.sweep)
    files = open_files(stores, keeping)
    tuning, trained = _open_jobs(
        gate, stores, keeping, files, messenger=fetcher, secret=settings.webhook_secret
    )
    return Gateway(
        gate=gate,
        stores=stores,
        notices=notices,
        schemas=schemas,
        keeping=keeping,
        files=files,
        tuning=tuning,
        trained=trained,
    )


def _open_jobs(
    gate: Gate,
    stores: Stores,
    keeping: Keeping,
    files: FileDesk | None,
    *,
    messenger: Messenger,
    secret: Secret | None,
) -> tuple[TuningDesk | None, TrainedShelf | None]:
    """Let the gate take jobs, where there is a store that keeps them; return what trains models."""
    opened = stores.opened
    if opened is None or files is None:
        return None, None
    trained = TrainedShelf(
        files, StoredTunedModels(opened.database), catalog=lambda: gate.directory.catalog, now_ms=now_ms
    )
    jobs = StoredJobs(opened.database)
    key = opened.pepper.derive("webhooks") if secret is None else secret.reveal().encode()
    work = JobWork(
        gate.media,
        jobs,
        keeping,
        working=lambda: gate.working,
        now_ms=now_ms,
        tell=JobTeller(messenger, secret=key, now_ms=now_ms),
        trained=trained,
    )
    tuning = TuningDesk(gate.media, files, jobs)
    desk = JobDesk(
        gate.pipeline, gate.media, jobs, now_ms=now_ms, take_up=work.take_up, desks={"fine_tune": tuning}
    )
    gate.use_jobs(desk, work)
    return tuning, trained


def open_files(stores: Stores, keeping: Keeping) -> FileDesk | None:
    """Return where files are kept; None where there is no store that knows of them."""
    if stores.opened is None:
        return None
    files = StoredFiles(stores.opened.database)
    return FileDesk(files, keeping, new_id=ids_of(stores.owner), now_ms=now_ms)


def open_keeping(settings: Settings, stores: Stores) -> Keeping:
    """Return where media are kept, with links that every process of this gateway signs alike."""
    said = settings.media
    key = token_bytes(32) if stores.opened is None else stores.opened.pepper.derive("links")
    return Keeping(
        _blobs(settings),
        Links(key),
        root=f"{settings.api.path}/v1/blobs",
        link_s=said.link_s,
        now_ms=now_ms,
    )


def _blobs(settings: Settings) -> Blobs:
    said = settings.media
    if said.s3_url is None:
        return FolderBlobs(settings.server.data_dir / "blobs", retention_s=said.retention_s)
    # An optional driver, as in storage/database.py.
    from llm_gate.storage.s3_blobs import S3Blobs  # noqa: PLC0415

    return S3Blobs(said.s3_url, retention_s=said.retention_s)


def budgets_of(settings: Settings) -> Budgets:
    """Return how much may be repeated and hedged."""
    said = settings.retries
    return Budgets(
        share=said.budget_percent / 100, floor=said.budget_floor, hedge_share=said.hedge_percent / 100
    )


def open_stores(settings: Settings) -> Stores:
    """Open the stores that the settings name.

    Raises:
        GateFault: they cannot be opened, or the default plan does not exist.
    """
    opened = open_store(
        data_dir=settings.server.data_dir,
        database_url=settings.database_url,
        pepper=settings.pepper,
        at_ms=now_ms(),
    )
    apply_plans(opened.database, settings.plans.custom, now_ms())
    names = {plan.name for plan in opened.database.ask(stored_plans)} | {UNLIMITED}
    if settings.plans.default not in names:
        raise GateFault(
            f"plans.default: there is no plan called {settings.plans.default!r} (there are {', '.join(sorted(names))})"
        )
    if (fault := unknown_plan(settings, names)) is not None:
        raise GateFault(fault)
    owner = token_hex(8)
    folder = settings.server.data_dir / "owners"
    ledger = StoredLedger(
        opened.database,
        owner=owner,
        new_id=ids_of(owner),
        owners_folder=folder,
    )
    return Stores(
        owner=owner,
        ledger=ledger,
        directives=opened.directives,
        digest=opened.pepper.key_hash,
        answers=StoredAnswers(opened.database, key=opened.pepper.derive("answers")),
        **_in_redis(settings),
        quotes=StoredQuotes(opened.database),
        opened=opened,
    )


class _Shared(TypedDict):
    short: ShortWindows | None
    conditions: SharedConditions | None


def _in_redis(settings: Settings) -> _Shared:
    """Return what processes share through Redis, where there is one."""
    if settings.redis_url is None:
        return {"short": None, "conditions": None}
    # Optional drivers, as in storage/database.py.
    from llm_gate.storage.redis import RedisLink, RedisWindows  # noqa: PLC0415
    from llm_gate.storage.redis_conditions import RedisConditions  # noqa: PLC0415

    link = RedisLink(settings.redis_url)
    return {"short": RedisWindows(link), "conditions": RedisConditions(link)}


def memory_stores() -> Stores:
    """Return stores that end with the process."""
    ledger = MemoryLedger()
    return Stores(
        owner=token_hex(8), ledger=ledger, quotes=ledger, directives=NoDirectives(), digest=lambda _: None
    )


def access_rules(settings: Settings) -> AccessRules:
    """Return what the settings say of callers."""
    key = settings.api_key
    return AccessRules(
        default_plan=settings.plans.default,
        operator_digest=None if key is None else sha256(key.reveal().encode()).digest(),
        needs_key=not is_loopback(settings.server.host),
    )


def now_ms() -> int:
    """Return the time, in milliseconds since 1970."""
    return time_ns() // 1_000_000


def ids_of(owner: str) -> Callable[[], str]:
    """Return a function that gives ids which grow with time and are unique over all processes."""
    serial = count()
    return lambda: f"{now_ms():012x}-{owner}-{next(serial):x}"
