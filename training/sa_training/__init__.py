"""Floor 2: network, losses, data pipeline, training loop and checkpoints (torch)."""
