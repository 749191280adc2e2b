"""What went wrong before and must not happen here: one module or more an incident."""
