"""What is written inside a model file: the contract, the canary crops, and how they are read."""
