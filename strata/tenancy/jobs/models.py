"""What jobs keep in the tenant's own tables."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func
from sqlalchemy.orm import Mapped, mapped_column

from strata.tenancy.scoping import TenantModel


class JobRun(TenantModel):
    """Work of a job that is done, marked in the transaction that did it."""

    __tablename__ = "job_run"

    key: Mapped[str]
    job: Mapped[str]
    done_at: Mapped[datetime] = mapped_column(server_default=func.now())
