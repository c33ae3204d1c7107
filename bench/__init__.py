"""Measurements: `python -m bench [PART ...]`, or `make bench`; the tables go to bench/RESULTS.md."""
