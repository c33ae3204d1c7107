"""Ledger to hourly and daily demand, and to regional and global totals."""
