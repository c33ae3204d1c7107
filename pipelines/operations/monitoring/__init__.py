"""How the chain fares, in figures: for Prometheus, for `stockcast status` and for health checks.

`figures` takes them from tables and Kafka, `health` says what is wrong with them, `streams` follows Spark's queries,
`exposition` turns both into metrics, and `serving` answers Prometheus.
"""
