"""The losses: cross entropy of every classifier, batch-hard triplet on the pooled parts.

Shape suffixes: N images, K classes, D embedding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sa_training.network import Output


def classification_losses(
    output: Output, labels_N: Tensor, label_smoothing: float = 0.0
) -> list[Tensor]:
    """Cross entropy of each classifier; the authors' loss is their plain sum."""
    return [
        F.cross_entropy(logits_NK.float(), labels_N, label_smoothing=label_smoothing)
        for logits_NK in output.logits
    ]


def batch_hard_triplet(vectors_ND: Tensor, labels_N: Tensor, margin: float) -> Tensor:
    """Batch-hard triplet loss (Hermans et al., arXiv 1703.07737) on unit vectors.

    Args:
        vectors_ND: (N, D), made unit length here; distances are Euclidean.
        labels_N: identities, each at least twice.
        margin: of the hinge; 0 takes the soft margin ``log(1 + exp(.))``.
    """
    unit_ND = F.normalize(vectors_ND.float(), dim=1)
    distance_NN = (2 - 2 * unit_ND @ unit_ND.T).clamp_min(1e-9).sqrt()
    same_NN = labels_N[:, None] == labels_N[None]
    hardest_positive_N = torch.where(same_NN, distance_NN, distance_NN.new_zeros(())).amax(1)
    hardest_negative_N = torch.where(same_NN, distance_NN.new_full((), 4.0), distance_NN).amin(1)
    gap_N = hardest_positive_N - hardest_negative_N
    per_anchor_N = F.softplus(gap_N) if margin == 0 else F.relu(gap_N + margin)
    return per_anchor_N.mean()


def similarity_distillation(vectors_ND: Tensor, teacher_NE: Tensor) -> Tensor:
    """Mean squared difference of the batch's cosine similarities and the teacher's.

    Similarity-preserving distillation (Tung and Mori, arXiv 1907.09682) with cosines, so that a
    student of any width learns how far apart its teacher sees two people.

    Args:
        vectors_ND: the student's, of any length.
        teacher_NE: the teacher's, rows of unit length.
    """
    unit_ND = F.normalize(vectors_ND.float(), dim=1)
    difference_NN = unit_ND @ unit_ND.T - teacher_NE @ teacher_NE.T
    return difference_NN.square().mean()


def feature_distillation(mapped_NE: Tensor, teacher_NE: Tensor) -> Tensor:
    """One minus the cosine between a map of the student's vectors and the teacher's."""
    return 1 - (F.normalize(mapped_NE.float(), dim=1) * teacher_NE).sum(dim=1).mean()
