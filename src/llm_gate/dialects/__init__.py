"""Wire formats, both directions: pure functions over bytes and values."""
