"""Where numbers go: metrics.jsonl, which is the truth, and W&B and TensorBoard, which are views of it."""
