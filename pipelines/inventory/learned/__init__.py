"""Levels that are learnt from the past, beside the classical ones; the replay's cost decides which are used."""
