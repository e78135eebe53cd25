"""The five gallery pictures most like the first query."""

from sa_deploy import Embedder, load_dataset, top_k

people = load_dataset("synthetic", "world")
gallery = [sample.path for sample in people.gallery]
with Embedder("run/model.onnx") as embedder:
    query = embedder.embed_paths([people.query[0].path])
    found = top_k(query, embedder.embed_paths(gallery), k=5)
print(people.query[0].path.name, [gallery[row].name for row in found.index[0]])
