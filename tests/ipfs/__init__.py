"""Tests of getting and proving content."""
