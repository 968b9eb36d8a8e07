"""Structured pruning: which channels and blocks leave a model, and what leaves with them."""
