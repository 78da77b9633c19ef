"""The HTTP server of repositories: key/value by digest, files by path, hoards, and pages to look at."""
