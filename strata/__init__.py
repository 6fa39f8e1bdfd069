"""Strata: tenants on shared rows, a schema, or a database of their own, and moved between them while they work."""

__version__ = "0.1.0"
