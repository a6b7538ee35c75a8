"""Fields in files: one global array a field, written by all ranks, read back on any number of them."""
