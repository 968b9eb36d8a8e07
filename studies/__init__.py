"""Thin scripts, one per experiment; what they found is in RESULTS.md."""
