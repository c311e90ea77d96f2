"""Studies: a claim becomes a file (configs/study/), a command (scripts/reproduce.py) and a verdict to check.

study.py reads the file and lists its runs; pool.py runs what is missing; rows.py keeps what came out; statistics.py
and verdicts.py say what it means; table.py and figures.py show it.
"""
