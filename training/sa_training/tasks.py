"""What is trained for, and measured by: people found again, or images classified."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.datasets.cifar100 import is_cifar100
from sa_runtime.datasets.loading import load_datasets
from sa_runtime.errors import DatasetError, InputError, bad_value
from sa_runtime.retrieval.metrics import RetrievalResult
from sa_runtime.retrieval.per_query import per_query_table
from sa_training.classification import accuracy_of, training_set
from sa_training.classification_data import LabelledImages, cifar100
from sa_training.data import FileImages
from sa_training.evaluation import evaluate_network
from sa_training.loop import TrainingSet
from sa_training.network import SANetwork
from sa_training.recipes import Recipe

CLASSIFICATION = "cifar100"
"""The data set whose images are classified; all others hold people."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examined:
    """A finished network's test.

    Attributes:
        figures: fractions, the most telling one first.
        queries: a row for each query, see :mod:`sa_runtime.retrieval.per_query`; ``None`` where
            images are classified.
    """

    figures: Mapping[str, float]
    queries: pa.Table | None = None


class Task(Protocol):
    """A data set with what its networks are measured by."""

    @property
    def name(self) -> str:
        """The data set's."""

    def counts(self) -> Mapping[str, str]:
        """What each split holds, for people."""

    def training(self, recipe: Recipe, *, keep: bool) -> TrainingSet:
        """Images and labels to train on; ``keep`` as :class:`FileImages` has it."""

    def score(self, network: SANetwork) -> Mapping[str, float]:
        """Figures while training, as fractions; the first one makes a network the best."""

    def test(self, network: SANetwork) -> Mapping[str, float]:
        """Figures of a finished network, as fractions, the most telling one first."""

    def examine(self, network: SANetwork) -> Examined:
        """The figures of :meth:`test`, and what they are means of."""


@dataclass(frozen=True, kw_only=True)
class Reidentification:
    """People to be found again.

    Attributes:
        dataset: trained on, and tested with its queries and gallery.
        held_out: people of the training split that are left out of it to pick the best epoch by;
            ``None`` picks by the test images, as the field does, which flatters.
    """

    dataset: ReidDataset
    held_out: ReidDataset | None = None

    @property
    def name(self) -> str:
        """The data set's."""
        return self.dataset.name

    def counts(self) -> Mapping[str, str]:
        """Images, people and cameras of each split."""
        found: dict[str, str] = {
            name: f"{split.images} images, {split.persons} people, {split.cameras} cameras"
            for name, split in self.dataset.counts().items()
        }
        if self.held_out is not None:
            samples = (*self.held_out.query, *self.held_out.gallery)
            people = len({sample.person for sample in samples})
            found["held out"] = f"{len(samples)} images, {people} people"
        return found

    def training(self, recipe: Recipe, *, keep: bool) -> TrainingSet:
        """The training images at the network's size.

        Raises:
            InputError: a recipe for classification.
            DatasetError: no training images.
        """
        config = recipe.network
        if config.head == "linear":
            raise InputError(
                f"recipe {recipe.name}: classifies images, and {self.dataset.root} holds people; "
                "pass `recipe='sa'`, 'strong', 'cpu' or 'tiny', or `names='cifar100'`"
            )
        if not self.dataset.train:
            raise DatasetError(self._nobody())
        return TrainingSet(
            name=str(self.dataset.root),
            images=FileImages(self.dataset.train, config.height, config.width, keep=keep),
            labels=self.dataset.train_labels().tolist(),
        )

    def _nobody(self) -> str:
        root, people = self.dataset.root, len({s.person for s in self.dataset.gallery})
        if self.dataset.name != "folder":
            return f"{root}: no training images; expected some beside its queries and gallery"
        if (root / "gallery").is_dir():
            return f"{root}: no training images; expected {root / 'train'}/PERSON/*.jpg too"
        return (
            f"{root}: no training images: it is laid out as PERSON/*.jpg ({people} people), where "
            "every image is query and gallery; expected train/PERSON/*.jpg, query/PERSON/*.jpg "
            f"and gallery/PERSON/*.jpg: move the people to train on into {root / 'train'}"
        )

    def score(self, network: SANetwork) -> Mapping[str, float]:
        """``mAP`` and ``rank1`` on the people held out, or on the test images."""
        figures = retrieval_figures(network, self.held_out or self.dataset)
        return {name: figures[name] for name in ("mAP", "rank1")}

    def test(self, network: SANetwork) -> Mapping[str, float]:
        """``mAP``, ``rank1``, ``rank5``, ``rank10`` by the protocol of Market-1501."""
        return retrieval_figures(network, self.dataset)

    def examine(self, network: SANetwork) -> Examined:
        """The figures of :meth:`test`, with those of each query."""
        report = evaluate_network(network, self.dataset)
        return Examined(
            figures=_retrieval_figures(report.result),
            queries=per_query_table(report, self.dataset),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Classification:
    """Images to be classified, those to train on and those to test with."""

    train: LabelledImages
    test_images: LabelledImages
    name: str = CLASSIFICATION

    def counts(self) -> Mapping[str, str]:
        """Images and classes of both splits."""
        return {
            split: f"{len(images.labels)} images, {len(np.unique(images.labels))} classes"
            for split, images in (("train", self.train), ("test", self.test_images))
        }

    def training(self, recipe: Recipe, *, keep: bool) -> TrainingSet:
        """The training images, which are in memory.

        Raises:
            InputError: a recipe for people, or for images of another size.
        """
        return training_set(recipe, self.train)

    def score(self, network: SANetwork) -> Mapping[str, float]:
        """The figures of :meth:`test`: the field reports its last epoch, not its best."""
        return self.test(network)

    def test(self, network: SANetwork) -> Mapping[str, float]:
        """``top1`` and ``top5``."""
        return asdict(accuracy_of(network, self.test_images))

    def examine(self, network: SANetwork) -> Examined:
        """The figures of :meth:`test` alone."""
        return Examined(figures=self.test(network))


def retrieval_figures(network: SANetwork, dataset: ReidDataset) -> dict[str, float]:
    """``mAP``, ``rank1``, ``rank5`` and ``rank10``, as fractions."""
    return _retrieval_figures(evaluate_network(network, dataset).result)


def _retrieval_figures(result: RetrievalResult) -> dict[str, float]:
    return {"mAP": result.mAP, **{f"rank{k}": result.rank(k) for k in (1, 5, 10)}}


def load_task(names: str, roots: Path | str, *, hold_out: float = 0.0, seed: int = 0) -> Task:
    """A data set by its name, or several by names separated by commas.

    Args:
        names: as ``sa-deploy train -d`` takes them; ``cifar100`` is classified, ``auto``
            recognises what lies in the folder.
        roots: the folder, or folders.
        hold_out: fraction of the training people to pick the best epoch by.
        seed: of who is held out.

    Raises:
        InputError: an unknown name, a fraction outside [0, 1), or CIFAR-100 with ``hold_out``.
        DatasetError: another layout.
    """
    if names == "auto" and is_cifar100(Path(roots)):
        names = CLASSIFICATION
    if CLASSIFICATION in (wanted := [name.strip() for name in names.split(",")]):
        if len(wanted) > 1:
            raise bad_value(
                "names",
                names,
                f"{CLASSIFICATION} is classified, the others hold people; pass it alone",
            )
        if hold_out:
            raise bad_value(
                "hold_out", hold_out, "holds people out, and cifar100 has none; leave it out"
            )
        train, test = cifar100(Path(roots))
        return Classification(train=train, test_images=test)
    return split_off(load_datasets(names, roots), hold_out, seed)


def split_off(dataset: ReidDataset, fraction: float, seed: int) -> Reidentification:
    """Hold a fraction of the training people out: one query a camera, the rest as gallery.

    Raises:
        InputError: a fraction outside [0, 1), or one that leaves no people on one side.
    """
    if fraction == 0:
        return Reidentification(dataset=dataset)
    people = sorted({sample.person for sample in dataset.train})
    count = round(fraction * len(people))
    if not 0 < count < len(people):
        raise bad_value(
            "hold_out",
            fraction,
            f"holds out {count} of {len(people)} people; expected a fraction that leaves some on "
            "both sides",
        )
    chosen = {people[i] for i in np.random.default_rng(seed).permutation(len(people))[:count]}
    query: dict[tuple[int, int], Sample] = {}
    gallery: list[Sample] = []
    for sample in dataset.train:
        if sample.person in chosen:
            place = (sample.person, sample.camera)
            if query.setdefault(place, sample) is not sample:
                gallery.append(sample)
    left = tuple(sample for sample in dataset.train if sample.person not in chosen)
    return Reidentification(
        dataset=replace(dataset, train=left),
        held_out=replace(
            dataset,
            name=f"{dataset.name}, held out",
            train=(),
            query=tuple(query.values()),
            gallery=tuple(gallery),
        ),
    )
