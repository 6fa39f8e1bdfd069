"""Who did what, when, from where, and how they had proved who they are.

A tenant's audit is a table of its own cell (`models.py`), so that it moves and dies with the tenant; the staff's and the
platform's is a table of the catalog (`tenancy/catalog/audit.py`). Both are append-only, and each row hashes the one
before it (`chain.py`). Code that changes something of a tenant calls `record` in the transaction that changes it.
"""

from strata.tenancy.audit.recording import record

__all__ = ["record"]
