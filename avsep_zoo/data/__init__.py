"""From data on disk to training batches."""
