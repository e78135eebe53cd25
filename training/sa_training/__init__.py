"""Floor 2: the network, its losses, the data pipeline, the training loop and checkpoints (torch)."""
