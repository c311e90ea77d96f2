"""From rows to verdicts: what a study's tests found, and how sure that is."""
