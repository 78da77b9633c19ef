"""What scripts/bench is made of. Standard library only."""
