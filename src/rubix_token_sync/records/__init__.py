"""Records: the column table, keys and digests, and how values become columns."""
