"""What norms cost: `measure` takes times and memory side by side in one process, `tables` shows them.

scripts/bench.py is the command.
"""
