"""Everybody in a video, as rows of a Parquet file."""

from sa_deploy import embed, read_embeddings

detections = "world/videos/c1.gt.txt"
result = embed("world/videos/c1.mp4", "run/model.onnx", "people.parquet", detections=detections)
print(result.rows, "rows", read_embeddings("people.parquet").vectors.shape)
