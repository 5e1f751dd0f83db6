"""The tables, the same for SQLite and PostgreSQL. Instants are milliseconds since 1970, money is nano-dollars.

Structured values are JSON texts: they are read whole, and SQLite has no other way. Records are never changed.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()


def _whole(name: str, **options: object) -> "Column[int]":
    return Column(name, BigInteger, nullable=False, **options)  # type: ignore[arg-type]


def _text(name: str, **options: object) -> "Column[str]":
    return Column(name, Text, nullable=False, **options)  # type: ignore[arg-type]


balance = Table(
    "balance",
    metadata,
    _text("account", primary_key=True),
    _whole("start_ms", primary_key=True, autoincrement=False),
    _whole("end_ms"),
    _whole("used"),
    _whole("held"),
    _whole("seeded"),
    sqlite_with_rowid=False,
)

reservation = Table(
    "reservation",
    metadata,
    _text("id", primary_key=True),
    _text("owner", index=True),
    Column("expires_ms", BigInteger),
    _text("body"),
    sqlite_with_rowid=False,
)

usage_record = Table(
    "usage_record",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("application"),
    _text("user_id"),
    Column("key_id", Text),
    _text("request_id"),
    _text("operation"),
    _text("bucket"),
    _text("endpoint"),
    _text("plan"),
    Column("provider", Text),
    Column("model", Text),
    _text("status"),
    _text("quality"),
    Column("error_code", Text),
    _whole("made_ms"),
    _whole("ended_ms"),
    _whole("attempts"),
    _whole("count"),
    _whole("input_tokens"),
    _whole("output_tokens"),
    _whole("tokens"),
    Column("cost_nanos", BigInteger),
    Column("synthetic", Boolean, nullable=False),
    _text("charges"),
    Index("usage_record_by_user", "tenant", "user_id", "made_ms"),
    sqlite_with_rowid=False,
)

attempt = Table(
    "attempt",
    metadata,
    _text("record_id", primary_key=True),
    _whole("number", primary_key=True, autoincrement=False),
    _text("provider"),
    _text("model"),
    _text("status"),
    _text("quality"),
    _whole("started_ms"),
    _whole("ended_ms"),
    _text("units"),
    _whole("tokens"),
    Column("cost_nanos", BigInteger),
    Column("vendor_cost_nanos", BigInteger),
    _text("prices"),
    Column("error_code", Text),
    Column("upstream_status", Integer),
    Column("synthetic", Boolean, nullable=False),
    Column("saved_nanos", BigInteger),
    sqlite_with_rowid=False,
)

usage_summary = Table(
    "usage_summary",
    metadata,
    _text("tenant", primary_key=True),
    _text("user_id", primary_key=True),
    _text("day", primary_key=True),
    _text("application", primary_key=True),
    _text("bucket", primary_key=True),
    _text("provider", primary_key=True),
    _text("model", primary_key=True),
    _whole("requests"),
    _whole("attempts"),
    _whole("failures"),
    _whole("input_tokens"),
    _whole("output_tokens"),
    _whole("cost_nanos"),
    _whole("unpriced"),
    _whole("duration_ms"),
    sqlite_with_rowid=False,
)

alert = Table(
    "alert",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("user_id"),
    _text("scope"),
    _text("subject"),
    _text("account"),
    _text("limit_name"),
    _whole("start_ms"),
    _whole("end_ms"),
    _whole("threshold"),
    _text("plan"),
    _whole("used"),
    _whole("cap"),
    _whole("created_ms"),
    Column("read_ms", BigInteger),
    Column("sent_ms", BigInteger),
    _whole("tries"),
    Column("next_try_ms", BigInteger),
    UniqueConstraint("account", "start_ms", "threshold"),
    Index("alert_by_user", "tenant", "user_id", "created_ms"),
    sqlite_with_rowid=False,
)

notice = Table(
    "notice",
    metadata,
    _text("id", primary_key=True),
    _text("cause"),
    _text("subject"),
    _text("message"),
    _whole("created_ms"),
    _whole("after_ms"),
    Column("sent_ms", BigInteger),
    _whole("tries"),
    Column("next_try_ms", BigInteger),
    UniqueConstraint("cause", "subject", "after_ms"),
    Index("notice_by_time", "created_ms"),
    sqlite_with_rowid=False,
)

job = Table(
    "job",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("user_id"),
    _text("owner"),
    _whole("lease_until_ms"),
    Column("is_over", Boolean, nullable=False),
    Column("is_cancelled", Boolean, nullable=False),
    _whole("version"),
    _text("body"),
    Index("job_by_tenant", "tenant", "user_id", "id"),
    Index("job_by_state", "is_over", "lease_until_ms"),
    sqlite_with_rowid=False,
)
"""Slow work. `owner` works on it until `lease_until_ms`; `is_cancelled` is what somebody else wishes."""

file = Table(
    "file",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("purpose"),
    Column("expires_ms", BigInteger),
    _text("body"),
    Index("file_by_tenant", "tenant", "id"),
    sqlite_with_rowid=False,
)

tuned_model = Table(
    "tuned_model",
    metadata,
    _text("provider", primary_key=True),
    _text("name", primary_key=True),
    _text("tenant"),
    _whole("made_ms"),
    _text("body"),
    Index("tuned_model_by_tenant", "tenant", "name"),
    sqlite_with_rowid=False,
)
"""Models that came of fine-tuning, by the name that their vendor gave them; each is its tenant's alone."""

batch = Table(
    "batch",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("user_id"),
    _text("owner"),
    _whole("lease_until_ms"),
    Column("is_over", Boolean, nullable=False),
    Column("is_cancelled", Boolean, nullable=False),
    _whole("version"),
    _text("body"),
    Index("batch_by_tenant", "tenant", "id"),
    Index("batch_by_state", "is_over", "lease_until_ms"),
    sqlite_with_rowid=False,
)
"""Batches, leased as jobs are."""

batch_line = Table(
    "batch_line",
    metadata,
    _text("batch_id", primary_key=True),
    _whole("number", primary_key=True, autoincrement=False),
    Column("is_error", Boolean, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)
"""What came of each line of a batch that the gateway itself works through, until its files are written."""

cache_entry = Table(
    "cache_entry",
    metadata,
    Column("place", LargeBinary, primary_key=True),
    _text("tenant"),
    Column("neighbourhood", LargeBinary),
    _whole("number"),
    _whole("made_ms"),
    _whole("expires_ms"),
    _whole("size"),
    Column("sealed", LargeBinary, nullable=False),
    Index("cache_entry_by_tenant", "tenant"),
    Index("cache_entry_by_end", "expires_ms"),
    Index("cache_entry_by_age", "made_ms"),
    Index("cache_entry_by_neighbourhood", "neighbourhood", "number"),
    sqlite_with_rowid=False,
)
"""Kept answers. `place` is the digest of shelf and key, `neighbourhood` that of shelf and group (none: no vector)."""

process = Table(
    "process",
    metadata,
    _text("id", primary_key=True),
    _whole("started_ms"),
    _whole("lease_until_ms"),
    sqlite_with_rowid=False,
)

virtual_key = Table(
    "virtual_key",
    metadata,
    _text("id", primary_key=True),
    Column("digest", LargeBinary, nullable=False, unique=True),
    _text("prefix"),
    _text("name"),
    _text("tenant"),
    _text("application"),
    Column("user_id", Text),
    _text("scopes"),
    _text("allowed_models"),
    _text("limits"),
    _whole("created_ms"),
    Column("expires_ms", BigInteger),
    Column("retires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    Column("replaced_by", Text),
    Index("virtual_key_by_tenant", "tenant", "id"),
)

plan = Table(
    "plan",
    metadata,
    _text("name", primary_key=True),
    _text("body"),
    _whole("updated_ms"),
)

subscription = Table(
    "subscription",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("user_id"),
    _text("plan"),
    _text("cycle"),
    _whole("start_ms"),
    _whole("term_end_ms"),
    Column("auto_renew", Boolean, nullable=False),
    _whole("created_ms"),
    Column("ended_ms", BigInteger),
    Index(
        "subscription_held",
        "tenant",
        "user_id",
        unique=True,
        sqlite_where=text("ended_ms IS NULL"),
        postgresql_where=text("ended_ms IS NULL"),
    ),
)

renewal = Table(
    "renewal",
    metadata,
    _text("id", primary_key=True),
    _text("tenant"),
    _text("user_id"),
    _text("body"),
    _whole("created_ms"),
    Index("renewal_by_user", "tenant", "user_id", "created_ms"),
)

tenant = Table(
    "tenant",
    metadata,
    _text("id", primary_key=True),
    _text("label"),
    Column("plan", Text),
    _text("limits"),
    _whole("anchor_ms"),
    Column("is_active", Boolean, nullable=False),
    _whole("created_ms"),
)

application = Table(
    "application",
    metadata,
    _text("tenant", primary_key=True),
    _text("id", primary_key=True),
    _text("label"),
    _text("limits"),
    _text("allowed_models"),
    _whole("anchor_ms"),
    Column("is_active", Boolean, nullable=False),
    _whole("created_ms"),
)

credential = Table(
    "credential",
    metadata,
    _text("tenant", primary_key=True),
    _text("provider", primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
    _whole("created_ms"),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    _whole("at_ms"),
    _text("actor"),
    _text("action"),
    _text("tenant"),
    _text("target"),
    _text("change"),
    _text("chain"),
)

idempotency = Table(
    "idempotency",
    metadata,
    _text("subject", primary_key=True),
    _text("key", primary_key=True),
    _text("fingerprint"),
    _text("state"),
    _text("owner"),
    _whole("created_ms"),
    _whole("expires_ms", index=True),
    Column("status", Integer),
    Column("sealed", LargeBinary),
)

meta = Table(
    "meta",
    metadata,
    _text("name", primary_key=True),
    _text("value"),
)
"""Facts about the database itself: `revision`, which grows with every change an operator makes."""
