"""Mistakes that can be seen in the objects themselves, before any traffic."""
