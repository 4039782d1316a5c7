"""The trainer: a configuration, one loop, and a run folder that is a weights card."""
