"""Where bytes lie: namespaced key/value stores. One module per URL scheme; adding a backend is adding one file."""
