"""Files, tuned models, batches, and kept answers."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make their tables, and write down what an answer out of the cache saved."""
    op.add_column("attempt", sa.Column("saved_nanos", sa.BigInteger(), nullable=True))
    op.create_table(
        "file",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("file_by_tenant", "file", ["tenant", "id"], unique=False)
    op.create_table(
        "tuned_model",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("provider", "name"),
        sqlite_with_rowid=False,
    )
    op.create_index("tuned_model_by_tenant", "tuned_model", ["tenant", "name"], unique=False)
    _make_batches()
    _make_cache()


def _make_batches() -> None:
    op.create_table(
        "batch",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger(), nullable=False),
        sa.Column("is_over", sa.Boolean(), nullable=False),
        sa.Column("is_cancelled", sa.Boolean(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_with_rowid=False,
    )
    op.create_index("batch_by_tenant", "batch", ["tenant", "id"], unique=False)
    op.create_index("batch_by_state", "batch", ["is_over", "lease_until_ms"], unique=False)
    op.create_table(
        "batch_line",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("is_error", sa.Boolean(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "number"),
        sqlite_with_rowid=False,
    )


def _make_cache() -> None:
    op.create_table(
        "cache_entry",
        sa.Column("place", sa.LargeBinary(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("neighbourhood", sa.LargeBinary(), nullable=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("made_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("place"),
        sqlite_with_rowid=False,
    )
    op.create_index("cache_entry_by_tenant", "cache_entry", ["tenant"], unique=False)
    op.create_index("cache_entry_by_end", "cache_entry", ["expires_ms"], unique=False)
    op.create_index("cache_entry_by_age", "cache_entry", ["made_ms"], unique=False)
    op.create_index("cache_entry_by_neighbourhood", "cache_entry", ["neighbourhood", "number"], unique=False)
