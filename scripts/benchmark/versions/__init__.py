"""What scripts/bench-versions measures: a module for each phase."""
