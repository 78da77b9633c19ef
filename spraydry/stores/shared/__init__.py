"""What several backends need and none owns: pure, no I/O of its own."""
