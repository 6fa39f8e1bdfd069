"""Events: what happened to a tenant, told to whoever wants to know (docs/events.md, ADR 0008).

types.py      Event, its kind and version, and an event on its way to a consumer
emitting.py   emit(): one row in the cell's outbox, in the tenant's own transaction
consumers.py  who is told, and how each of them does its work once
relay.py      takes rows from the outboxes of the cells this process has the lease of; lane.py: one tenant's part of it
outbox.py     a cell's outbox as the relay sees it;   bell.py   wakes the relay after a commit
remainders.py what tenants have left behind in the outboxes of cells they moved away from
"""
