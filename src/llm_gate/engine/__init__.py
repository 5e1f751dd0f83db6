"""The use-cases: one pipeline over domain values and ports."""
