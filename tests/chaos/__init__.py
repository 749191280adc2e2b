"""Exact under fire: faults, kills, rivals, living sources, broken surroundings, fuzz."""
