"""A run directory in, a verdict with its evidence out."""
