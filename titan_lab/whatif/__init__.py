"""What would have been: a history with other events, folded where they matter, and compared."""
