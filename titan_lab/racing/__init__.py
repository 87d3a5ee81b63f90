"""Writers raced against readers on a scratch database: who misses an event, and who does not.

scratch.py   tables under a name that nobody has, dropped with all they hold
writers.py   transactions that are slow, rolled back, left open, prepared; and appends to the same place
readers.py   those that tail: the mirror's sync, the frontier alone, and the cursors that people write
report.py    what was found, and what it proves
run.py       the rounds
"""
