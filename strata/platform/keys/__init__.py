"""Secrets at rest go through one port: sealed text may lie in the catalog, what it hides never does."""
