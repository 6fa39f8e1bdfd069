"""Noisy neighbours: who loads a cell, whom it hurts, and what to do about it (docs/neighbours.md).

detector.py    windows of load in, verdicts out; knows no database
watching.py    feeds it with what this process measures, and writes down what it finds
explaining.py  their plans, and which index they want
advice.py      what to do about a finding
book.py        all of it in the catalog
"""
