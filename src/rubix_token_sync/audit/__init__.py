"""Is a token genuine: limits of levels, the table of numbers, verdicts, signatures."""
