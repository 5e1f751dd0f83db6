"""The catalog: data files of providers and models, and their loader."""
