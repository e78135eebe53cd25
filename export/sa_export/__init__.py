"""Floor 3: weights to TorchScript and ONNX, and the proof that they still retrieve the same people."""
