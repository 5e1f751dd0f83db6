"""Stores: the ledger, keys, plans and records, on SQLite or PostgreSQL; short windows on Redis."""
