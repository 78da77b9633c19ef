"""What backends are made of: parts that several need, or that would make the module of one too long."""
