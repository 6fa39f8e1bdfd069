"""How much a tenant may ask for at a time: requests a minute (rates), requests at once (concurrency).

Quotas, how much it may have, are counted in its own transactions by the domains that own the things (inventory/quotas.py).
"""
