"""The steps. A released one is never changed; migrate.py names the last one."""
