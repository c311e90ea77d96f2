"""Rows for others and from others: the bundle that a release carries, and counter-runs from another machine."""
