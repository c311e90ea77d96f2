"""From a study's file to its rows: which runs, what they cost, who trains them, what they gave."""
