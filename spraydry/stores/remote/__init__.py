"""A store behind `spraydry serve`: what both ends of the wire must agree on, and its client."""
