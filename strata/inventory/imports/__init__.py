"""Imports: a file and a mapping become products and movements, streamed, in batches, restartable.

mapping.py    what a mapping file may say        files.py      bytes of a file, unpacked and digested
records.py    rows out of the text of a CSV      rows.py       a row by the mapping: a line of a movement, or a refusal
batches.py    lines to movements to batches      survey.py     the first pass: names, spellings, opening stock
repository.py the run's SQL                      runner.py     the protocol: survey, claim, open, post, finish
report.py     refusals for people and programs   controllers.py  the same over HTTP
"""
