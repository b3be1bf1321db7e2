"""Experiments: methods compared over parts of the data and seeds."""
