"""From vectors to retrieval figures: distances, metrics, re-ranking, expansion, pictures."""
