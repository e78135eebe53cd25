"""Vectors of the people in one frame, from boxes as a detector gives them."""

import cv2

from sa_deploy import Embedder

_, frame = cv2.VideoCapture("world/videos/c1.mp4").read()
with Embedder("run/model.onnx") as embedder:
    vectors = embedder.embed_boxes(frame, [[120, 90, 180, 250], [300, 100, 360, 260]])
print(vectors.shape, "cosine:", vectors[0] @ vectors[1])
