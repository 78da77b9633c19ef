"""What one can do with a repository: each returns values, none prints."""
