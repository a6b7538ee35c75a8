"""What nodes of a cluster run when they start: a plain file, no code."""
