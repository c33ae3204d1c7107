"""How likely a shipment is to be late, when it is expected, and why."""
