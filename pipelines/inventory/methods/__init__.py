"""The policies, one a file; each registers itself (see `pipelines.inventory.policies`)."""
