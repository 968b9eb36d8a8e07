"""Simulated INT8 arithmetic, on the tensors that the exported file rounds."""
