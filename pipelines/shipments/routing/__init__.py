"""Other ways for shipments at risk: lanes as a graph, alternatives with their worth, and their approval."""
