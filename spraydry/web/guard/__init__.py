"""What stands in front of the server's handlers: who may what, how much, how fast, and what is written down of it."""
