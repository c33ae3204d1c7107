"""How much to hold: the distribution of lead-time demand, and the levels that follow from it."""
