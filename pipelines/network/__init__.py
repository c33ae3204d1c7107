"""The chain as a network: which suppliers and which locations are alike, and how long lanes take."""
