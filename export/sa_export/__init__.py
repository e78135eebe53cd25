"""Floor 3: weights to TorchScript and ONNX, with proof that they still find the same people."""
