"""Parity with official code: golden cases, read as data, run through the adapters of plugins."""
