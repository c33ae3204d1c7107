"""From the ledger to flags and orders: positions, decisions, outbox, relay."""
