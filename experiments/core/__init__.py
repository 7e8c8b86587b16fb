"""The words that every part shares; imports nothing else of ours."""
