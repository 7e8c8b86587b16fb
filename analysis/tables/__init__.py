"""A table of any load tool's, and a small file that says what its columns mean → the same rows that a run has."""
