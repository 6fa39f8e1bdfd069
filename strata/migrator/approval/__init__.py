"""Letting tenants in again on a server that was failed over to a standby.

A promoted standby runs on a timeline of its own, and every cell on it keeps everybody out (SM003): it may not have heard
of what came last. Approving it goes in this order, and can be run again from wherever it died:

    1  look         it is a primary, it holds these cells, and its timeline is newer than the one approved
    2  wait         for cut-overs of tenants here: they are called off, or have flipped, before anything is compared
    3  say so       the catalog's audit gets what is about to be done
    4  reconcile    one transaction a cell: fences as the catalog's placements say, positions of the outbox past all that
                    were ever given out, and last the timeline
    5  record       the cell's timeline in the catalog; the promoted standby is no replica any more
    6  clear away   homes that their tenants had left, or that were deleted, and that are back

The catalog leads. A fence is never opened at an epoch, or in a cell, other than the catalog's; a tenant whose arrival the
server has not heard of stays shut out, and the report says what there is to do. Tenants with a move under way belong to the
move: here their fences are only ever shut at epochs that are over.
"""
