"""Imports: a file and a mapping become products and movements, streamed, in batches, restartable (docs/importing.md).

The way of a row: files.py (bytes, unpacked and digested), records.py (rows of a CSV), rows.py (a row by the mapping:
a line of a movement, or a refusal), batches.py (lines to movements to batches), poster.py (a batch to the database).
mapping.py says what a mapping may say. survey.py is the first pass, runner.py the protocol around it all,
repository.py the run's own rows. report.py, uploads.py and controllers.py are the ways in and out.
"""
