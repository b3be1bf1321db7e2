"""Simulated passive sonar."""
