"""From the supplier's door to the shelf: where shipments are, and which of them will be late."""
