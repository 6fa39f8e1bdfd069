"""Imports: a file and a mapping become products and movements, streamed, in batches, restartable (docs/importing.md).

The way of a row: files.py (bytes, unpacked and digested), records.py (rows of a CSV), rows.py (a row by the mapping:
a line of a movement, or a refusal), batches.py (lines to movements to batches), poster.py (a batch to the database).
mapping.py says what a mapping may say, survey.py is the first pass, repository.py has the run's own rows.

Two ways to do a run. By the command, in its own process: runner.py. By workers: queueing.py takes the file in and changes
the state of what is queued, kept_files.py keeps it in the tenant's tables, events.py and consumer.py tell the workers,
planning.py leaves batches, jobs.py posts them one by one, pace.py says how fast.

report.py, uploads.py and controllers.py are the ways in and out.
"""
