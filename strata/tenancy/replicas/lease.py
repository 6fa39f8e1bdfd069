"""The two numbers of a standby's lease."""

from __future__ import annotations

SPAN_S = 4.0
"""How long a lease lasts; what a standby serves is at most this old, and the margin. strata.standby_lease_span() says the same in SQL."""

MARGIN_S = 1.0
"""How far a standby's clock may be behind its primary's; one further behind is granted no lease."""

OVER_AFTER_S = SPAN_S + MARGIN_S
"""By then every lease has run out on every standby that has replayed nothing since."""
