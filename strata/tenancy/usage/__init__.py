"""How much each tenant uses: counted where it happens, kept in the catalog by day and by month (docs/operating.md).

meter.py     counts in the process: requests in routing, statements in the tenant's sessions
statements.py slow statements by tenant, without literals
flushing.py  brings what was counted to the catalog, each batch once
book.py      what the catalog holds: months, days, growth
storage.py   what a tenant keeps, measured by a job
"""
