"""Floor 1: everything that runs a model. NumPy and OpenCV only; never torch."""
