"""The replay laboratory: history day by day through policy, lead times and constraints."""
