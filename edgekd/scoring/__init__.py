"""How good a classifier is, how sure we may be of it, and how two differ."""
