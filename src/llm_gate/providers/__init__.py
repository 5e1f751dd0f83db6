"""One file per vendor that needs code of its own; each ends with one value, `provider`."""
