"""What a target held earlier, and what each run changed: see docs/HISTORY.md."""
