"""A run's directory: whole files, checkpoints, who may write, a disk that is full, where the numbers came from."""
