"""Reports: results, and how they are shown on pages, in tables and in the terminal."""
