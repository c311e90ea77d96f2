"""Before anything is spent: what a run needs and costs, found without doing it."""
