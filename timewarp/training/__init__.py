"""The training loop and checkpoints; both know no model."""
