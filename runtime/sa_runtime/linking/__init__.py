"""The same person under several cameras: tracks to identities."""
