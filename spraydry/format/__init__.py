"""What is stored: digests, chunks, frames, trees, manifests, versions. Pure: no I/O, no threads. See FORMAT.md."""
