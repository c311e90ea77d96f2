"""DyT in somebody else's model: find its norms, swap them, say what became of each."""
