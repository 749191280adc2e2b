"""Rubix Token Sync: every token of every node, proven, in one queryable place."""

__version__ = "0.1.0"
