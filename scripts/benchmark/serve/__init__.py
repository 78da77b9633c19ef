"""What scripts/bench-serve measures: a module for each phase; those that begin with _ are for several of them."""
