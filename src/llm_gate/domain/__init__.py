"""Values and rules: the standard library and msgspec only, no I/O, no clock, no environment."""
