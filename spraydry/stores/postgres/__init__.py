"""What the store on PostgreSQL is built on: where a URL leads, and connections."""
