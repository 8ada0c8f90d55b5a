"""Programs that faults happen to."""
