"""Runs: what sync, verify, check and a dry run do, and the workers that do it."""
