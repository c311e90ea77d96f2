"""The page that shows studies and runs from disk, with no network and no account (scripts/report.py)."""
