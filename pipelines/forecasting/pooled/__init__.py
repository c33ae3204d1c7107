"""What series have in common, learnt from their sums: shapes of week and year, growth, and how far one differs."""
