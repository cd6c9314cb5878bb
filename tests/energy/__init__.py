"""The batched potential against OpenMM."""
