"""The training loop, distillation losses and regularising penalties."""
