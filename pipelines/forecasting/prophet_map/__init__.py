"""Prophet's posterior, maximised for many series at once; the models stay ordinary Prophet models."""
