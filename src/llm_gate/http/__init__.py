"""The HTTP edge: translates and delegates."""
