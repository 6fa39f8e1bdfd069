"""Moving a tenant from any placement to any other while it works. The protocol: docs/moving.md.

Read four files: this one, `phases.py` (which phase may follow which), `machine.py` (the only writer of a phase) and
`steps/` (one file for each phase, listed in order). The other files are mechanisms that know no phase.

Phases, and what holds in each:

    pending        registered and claimed; nothing has been made
    preparing      every object of the move is in the catalog before it is made
    copying        a slot and the snapshot exported with it: rows up to the snapshot by copy, later ones by the slot.
                   A copy that is interrupted starts again from nothing, under the next number
    catching_up    the target is the source as of its progress row, which is never behind what the slot has let go of
    verifying      as before; all rows of both sides are compared at one moment of the source
    ready          as before, verified; the way back is made and read; the tenant is closed to standbys
    cutting_over   the fence may be shut, by attempt n alone. The placement is the old one
    ---- the flip: one commit of the catalog, placement at epoch e', by compare-and-set on (cutting_over, n) ----
    retaining      the placement is the new one; the old home lets nobody in and follows the new one's changes
    completing     as before, and nothing leads back: the point of no return for `rollback`. Every act that destroys
                   looks in its own transaction whether the fence still leads elsewhere and the attempt stands
    completed      nothing that was made for the move is left, nor anything of the old home

    rolling_back   the cut-over in reverse, with a flip of its own
    withdrawing    the tenant is back in its old home; the other one is removed
    rolled_back    nothing that was made for the move is left
    cancelling, cancelled      before the flip: the tenant never left
    failed         a person must decide: `failure` says what, where, in what state the tenant is, and what to type.
                   Where the tenant's home is lost, a person may accept that: a flip to the home that it left

One tenant has at most one placement that accepts writes, in every phase and between any two acts of one: the catalog
names it by an epoch, and a cell lets in only who comes with the epoch in its fence row.

Whoever works on a move holds its lease, a row that runs out, and with it the attempt n. Everything that is written is
compared with n: phases in the catalog, fence rows in the cells (`fence.py`), every writing transaction of the move
(`strata.hold_attempt`), progress rows. A worker that was taken for dead and wakes up writes nothing.
"""
