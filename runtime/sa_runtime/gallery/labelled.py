"""Thresholds of a gallery from the labelled people of a data set, embedded now or before."""

from __future__ import annotations

from collections.abc import Callable

from sa_runtime.artefact.contract import require_same_space
from sa_runtime.datasets.base import ReidDataset
from sa_runtime.embedder import Embedder
from sa_runtime.gallery.calibration import Calibration, Stated, calibrate_pairs
from sa_runtime.gallery.gallery import Gallery
from sa_runtime.outputs.base import StoredEmbeddings
from sa_runtime.retrieval.evaluation import embed_samples, labels_of, require_both_sides
from sa_runtime.retrieval.stored import StoredImages


def calibrate_images(
    gallery: Gallery,
    model: Embedder | StoredEmbeddings,
    images: ReidDataset,
    *,
    name: str = "the model",
    origin: str = "",
    stated: Stated | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Thresholds from the queries and the gallery of a data set.

    Args:
        gallery: whose vectors will be compared; only its feature space is read.
        model: embeds the images, or has embedded them.
        images: with their people and cameras.
        name: what the model is called, for messages.
        origin: what the thresholds come from.
        stated: what errors are accepted.
        on_progress: called with the number of images done since the last call.

    Raises:
        ContractError: the model is of another feature space than the gallery, before it runs.
        InputError: an image that cannot be read or has no stored vector, or as for
            :func:`sa_runtime.gallery.calibration.calibrate_pairs`.
    """
    spaces = model.contract.space, gallery.contract.space
    require_same_space(*spaces, names=(name, f"the gallery {gallery.path}"))
    embed = (
        model.embed_paths
        if isinstance(model, Embedder)
        else StoredImages(model, images.root, name=name)
    )
    require_both_sides(images)
    vectors = [embed_samples(embed, side, on_progress) for side in (images.query, images.gallery)]
    return calibrate_pairs(
        vectors[0],
        labels_of(images.query),
        vectors[1],
        labels_of(images.gallery),
        origin=origin,
        stated=stated,
    )
