"""Videos: detection files, decoding, and the pipeline from frames to vectors."""
