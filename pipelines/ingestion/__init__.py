"""From bytes to validated events: the ledger, shipment events, order statuses, or quarantine with a reason."""
