"""Targets: the databases that records are published to, one folder each."""
