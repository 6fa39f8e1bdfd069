"""Jobs on Procrastinate: declared in code, queued in the catalog, run by `strata worker`. Knows owners, not tenants.

`declaration` says what a job is, `store` puts jobs into the queue and looks at them, `worker` runs them. Procrastinate
gives the tables, the worker's loop, heartbeats and notifications; `queue_client` replaces how a job is fetched (fairly
over owners) and how one is finished (only by the worker that still has it).
"""
