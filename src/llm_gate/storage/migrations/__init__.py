"""How the tables came to be what they are: one step after the other, forwards only. Alembic runs the steps."""
