"""The page that people keep open."""
