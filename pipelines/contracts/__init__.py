"""Names that outsiders rely on: topics, event fields, tables. Stated once, used everywhere."""
