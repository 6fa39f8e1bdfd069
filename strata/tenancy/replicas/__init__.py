"""Reads on standbys, without ever serving a tenant that has moved away or a client that does not see its own write.

- The *lease* (lease.py, watch.py): a row of the cell that its primary renews every second and that a standby has by
  replaying it. The standby's own door refuses when the lease, as replayed there, has run out by its own clock. So what a
  standby serves is never older than a lease lasts, and no process can be behind the times: the database refuses.
- *Closing* (closing.py): before a cut-over the tenant is closed to standbys in the cell; when a lease's length has
  passed, no standby is left that has not heard of it.
- The *client* (client.py, position.py): what a request knows of its client's last write. Who cannot be known to see its
  own writes reads from the primary.
- *Choosing* (choice.py): which standby, from what the watch saw last; no I/O. Any refusal leads to the primary.

docs/adr/0009-standby-reads.md has the argument.
"""
