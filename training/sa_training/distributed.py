"""Several processes, as ``torchrun`` starts them: one on each GPU (nccl), or on a CPU (gloo)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from sa_runtime.retrieval.evaluation import Embed
from sa_runtime.retrieval.vectors import Vectors


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Which process this is.

    Attributes:
        rank: from 0; 0 writes files and prints.
        count: of processes that train together.
        local: rank on this machine, which is also its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> Processes:
        """As ``torchrun`` says in the environment; a single process without it."""
        return cls(
            rank=int(os.environ.get("RANK", 0)),
            count=int(os.environ.get("WORLD_SIZE", 1)),
            local=int(os.environ.get("LOCAL_RANK", 0)),
        )

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and prints."""
        return self.rank == 0


@contextmanager
def joined(processes: Processes, device: torch.device) -> Iterator[None]:
    """Within it processes can exchange tensors; a single one, or one that can, sets nothing up."""
    if processes.count == 1 or dist.is_initialized():
        yield
        return
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def wait_for_all() -> None:
    """Until every joined process has come here, so that what the first wrote is there for all."""
    if dist.is_initialized():
        dist.barrier()


def greatest(value: float) -> float:
    """The greatest of joined processes' values; all must call it alike."""
    if not dist.is_initialized():
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    found = torch.tensor(value, dtype=torch.float64, device=device)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return float(found)


def same_everywhere(state: Mapping[str, torch.Tensor]) -> None:
    """Give joined processes the tensors of the first: batch-norm statistics are each one's own."""
    if dist.is_initialized():
        for value in state.values():
            dist.broadcast(value, 0)


def shared_embed(embed: Embed) -> Embed:
    """An ``embed`` whose files are shared out among joined processes; all must call it alike."""
    if not dist.is_initialized():
        return embed
    rank, count = dist.get_rank(), dist.get_world_size()

    def embed_all(paths: Sequence[Path]) -> Vectors:
        # Every process embeds as many, so that none waits for vectors of another shape.
        padded = [*paths, *[paths[0]] * (-len(paths) % count)]
        mine = embed(padded[rank::count])
        gathered: list[Vectors] = [mine] * count
        dist.all_gather_object(gathered, mine)
        together = np.stack(gathered, axis=1).reshape(len(padded), -1)
        return together[: len(paths)]

    return embed_all
