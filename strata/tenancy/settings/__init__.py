"""What a tenant chooses for itself: one document a tenant, of sections that the domains add.

`sections.py` says what a section is and has those of tenancy, `model.py` puts sections together and judges documents,
`merging.py` is RFC 7396, `book.py` keeps the documents in the catalog, with their history and their secrets. Limits and features
are no settings: they are agreed, see tenancy/entitlements.
"""
