"""Experiments as files that anyone can run, rerun and trust."""
