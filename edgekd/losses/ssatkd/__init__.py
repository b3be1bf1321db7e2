"""The texture terms of SSATKD (Ritu et al., arXiv 2501.01921)."""
