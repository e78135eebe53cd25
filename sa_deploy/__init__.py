"""Floor 4: the command line and the public names of sa-deploy.

These names are the library; every module below them may move. Each is imported when it is first
used, so that ``import sa_deploy`` loads nothing else.

>>> import sa_deploy
>>> "Embedder" in dir(sa_deploy)
True
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from sa_export.export import export_model
    from sa_runtime.adapters import adapter
    from sa_runtime.artefact.contract import Contract
    from sa_runtime.datasets.base import ReidDataset
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.detections.base import Detections
    from sa_runtime.detections.options import BoxOptions
    from sa_runtime.detections.table import read_detections
    from sa_runtime.embedder import Embedder
    from sa_runtime.errors import (
        BuildError,
        CheckpointError,
        ContractError,
        DatasetError,
        DetectionError,
        GateError,
        IncompleteError,
        InputError,
        MissingFileError,
        MissingPackageError,
        ParityError,
        RegressionError,
        RunnerError,
        SaDeployError,
        TrainingError,
        VideoError,
    )
    from sa_runtime.gallery.databases import DatabaseGallery
    from sa_runtime.gallery.found import Found
    from sa_runtime.gallery.gallery import Gallery
    from sa_runtime.gallery.rows import RowLabels, Where
    from sa_runtime.outputs.base import StoredEmbeddings
    from sa_runtime.outputs.parquet import EmbeddingWriter
    from sa_runtime.outputs.read import read_embeddings
    from sa_runtime.pipeline.embed import embed
    from sa_runtime.pipeline.result import EmbedResult
    from sa_runtime.retrieval.comparison import Comparison, compare_reports
    from sa_runtime.retrieval.evaluation import RetrievalReport, evaluate
    from sa_runtime.retrieval.expansion import Expansion
    from sa_runtime.retrieval.rerank import Reranking
    from sa_runtime.retrieval.search import rerank, top_k
    from sa_runtime.runners.base import Runner
    from sa_runtime.runners.opening import open_runner
    from sa_runtime.service.async_client import AsyncClient
    from sa_runtime.service.client import Client
    from sa_training.checkpoints import load_checkpoint
    from sa_training.recipes import recipe
    from sa_training.train import train_model

    __version__: str

__all__ = [
    "AsyncClient",
    "BoxOptions",
    "BuildError",
    "CheckpointError",
    "Client",
    "Comparison",
    "Contract",
    "ContractError",
    "DatabaseGallery",
    "DatasetError",
    "DetectionError",
    "Detections",
    "EmbedResult",
    "Embedder",
    "EmbeddingWriter",
    "Expansion",
    "Found",
    "Gallery",
    "GateError",
    "IncompleteError",
    "InputError",
    "MissingFileError",
    "MissingPackageError",
    "ParityError",
    "RegressionError",
    "ReidDataset",
    "Reranking",
    "RetrievalReport",
    "RowLabels",
    "Runner",
    "RunnerError",
    "SaDeployError",
    "StoredEmbeddings",
    "TrainingError",
    "VideoError",
    "Where",
    "__version__",
    "adapter",
    "compare_reports",
    "embed",
    "evaluate",
    "export_model",
    "load_checkpoint",
    "load_dataset",
    "open_runner",
    "read_detections",
    "read_embeddings",
    "recipe",
    "rerank",
    "top_k",
    "train_model",
]

# Type checkers read the imports above, Python reads this table; a test keeps the two equal.
_PUBLIC = {
    "AsyncClient": "sa_runtime.service.async_client:AsyncClient",
    "BoxOptions": "sa_runtime.detections.options:BoxOptions",
    "BuildError": "sa_runtime.errors:BuildError",
    "CheckpointError": "sa_runtime.errors:CheckpointError",
    "Client": "sa_runtime.service.client:Client",
    "Comparison": "sa_runtime.retrieval.comparison:Comparison",
    "Contract": "sa_runtime.artefact.contract:Contract",
    "ContractError": "sa_runtime.errors:ContractError",
    "DatabaseGallery": "sa_runtime.gallery.databases:DatabaseGallery",
    "DatasetError": "sa_runtime.errors:DatasetError",
    "DetectionError": "sa_runtime.errors:DetectionError",
    "Detections": "sa_runtime.detections.base:Detections",
    "EmbedResult": "sa_runtime.pipeline.result:EmbedResult",
    "Embedder": "sa_runtime.embedder:Embedder",
    "EmbeddingWriter": "sa_runtime.outputs.parquet:EmbeddingWriter",
    "Expansion": "sa_runtime.retrieval.expansion:Expansion",
    "Found": "sa_runtime.gallery.found:Found",
    "Gallery": "sa_runtime.gallery.gallery:Gallery",
    "GateError": "sa_runtime.errors:GateError",
    "IncompleteError": "sa_runtime.errors:IncompleteError",
    "InputError": "sa_runtime.errors:InputError",
    "MissingFileError": "sa_runtime.errors:MissingFileError",
    "MissingPackageError": "sa_runtime.errors:MissingPackageError",
    "ParityError": "sa_runtime.errors:ParityError",
    "RegressionError": "sa_runtime.errors:RegressionError",
    "ReidDataset": "sa_runtime.datasets.base:ReidDataset",
    "Reranking": "sa_runtime.retrieval.rerank:Reranking",
    "RetrievalReport": "sa_runtime.retrieval.evaluation:RetrievalReport",
    "RowLabels": "sa_runtime.gallery.rows:RowLabels",
    "Runner": "sa_runtime.runners.base:Runner",
    "RunnerError": "sa_runtime.errors:RunnerError",
    "SaDeployError": "sa_runtime.errors:SaDeployError",
    "StoredEmbeddings": "sa_runtime.outputs.base:StoredEmbeddings",
    "TrainingError": "sa_runtime.errors:TrainingError",
    "VideoError": "sa_runtime.errors:VideoError",
    "Where": "sa_runtime.gallery.rows:Where",
    "adapter": "sa_runtime.adapters:adapter",
    "compare_reports": "sa_runtime.retrieval.comparison:compare_reports",
    "embed": "sa_runtime.pipeline.embed:embed",
    "evaluate": "sa_runtime.retrieval.evaluation:evaluate",
    "export_model": "sa_export.export:export_model",
    "load_checkpoint": "sa_training.checkpoints:load_checkpoint",
    "load_dataset": "sa_runtime.datasets.loading:load_dataset",
    "open_runner": "sa_runtime.runners.opening:open_runner",
    "read_detections": "sa_runtime.detections.table:read_detections",
    "read_embeddings": "sa_runtime.outputs.read:read_embeddings",
    "recipe": "sa_training.recipes:recipe",
    "rerank": "sa_runtime.retrieval.search:rerank",
    "top_k": "sa_runtime.retrieval.search:top_k",
    "train_model": "sa_training.train:train_model",
}

if not TYPE_CHECKING:  # a type checker would take any name for an Any

    def __getattr__(name: str) -> Any:
        """Import a public name when it is first used."""
        import importlib

        if name == "__version__":
            from importlib.metadata import version

            value = version("sa-deploy")
        elif name in _PUBLIC:
            module, _, attribute = _PUBLIC[name].partition(":")
            try:
                value = getattr(importlib.import_module(module), attribute)
            except ModuleNotFoundError as error:
                from sa_runtime.system.extras import known_package

                raise known_package(error) or error from error
        else:
            raise AttributeError(f"module 'sa_deploy' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
