"""A seeded retail chain that writes its events to Kafka, and the replay of real sales."""
