"""Metrics and logs: observers of finished calls."""
