"""The numbers that pictures show, worked out from the tally: rows are not read again."""
