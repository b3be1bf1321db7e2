"""Files: written whole, locked, filled row by row."""
