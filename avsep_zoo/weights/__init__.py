"""Weights: their cards, where they come from, and how they are checked, converted and published."""
