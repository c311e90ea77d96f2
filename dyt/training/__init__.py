"""Training: the loop, its optimizer and processes, what is measured on the way, and what ends it early."""
