"""Jobs of tenants: the same context, session and log fields as a request, in the tenant's placement of that moment."""

from strata.tenancy.jobs.declaration import TenantJob as TenantJob
from strata.tenancy.jobs.declaration import tenant_job as tenant_job
from strata.tenancy.jobs.queue import JobQueue as JobQueue
