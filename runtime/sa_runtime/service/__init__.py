"""The embedder as a service over HTTP: dynamic batches, limits, what is watched, its client."""
