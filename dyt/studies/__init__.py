"""Studies: a claim becomes a file (configs/study/), a command (scripts/reproduce.py) and a verdict to check.

runner.py is the way from one end to the other: running/ (the file, its runs, their rows), judging/ (verdicts), showing/
(tables, figures, findings). statistics.py serves all three.
"""
