"""The only code that reads or writes Kafka and Delta."""
