"""What people and other systems talk to: the order API."""
