"""The embedded target: one SQLite file."""
