"""Looking inside: what happens to one sentence between its text and its translation."""
