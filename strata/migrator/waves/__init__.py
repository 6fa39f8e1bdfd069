"""Waves: many tenants moved one after the other, a few at a time, within hours that suit.

    window.py   the hours in which a wave may begin moves
    models.py   its two tables: the wave, and each tenant in it
    store.py    reading them; how each tenant went is read off its move, never written down twice
    desk.py     where people ask: gather tenants, start, pause, resume, retry, cancel
    driver.py   a worker's part: begins the next move, stops when too many have failed

A wave moves nothing itself. It begins moves, each in the transaction that also says so in the wave, and the keeper works
on them as on any other. So a worker that dies takes nothing with it: the next one finds the wave's lease run out, and in
the catalog which moves have begun.
"""
