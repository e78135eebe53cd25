"""State dicts as they are found in files: their names, what they lack, what they are not."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from sa_runtime.errors import CheckpointError
from sa_training.network import NetworkConfig, SANetwork

EMBEDDING = ("base.", "local_conv.", "feat_bn2d.")
"""How the names of all weights begin that an embedding depends on."""
UNUSED = re.compile(r"^(base\.fc\.|fusion_conv\.)|num_batches_tracked$")
"""Names that the authors' files hold, or lack, without effect on the network."""
_WRAPPERS = re.compile(r"^(?:module\.|_orig_mod\.)+|(?<=\.)_orig_mod\.")
"""What DataParallel and torch.compile put before, or into, a name."""
_CLASSIFIERS = (re.compile(r"^instance\d+\."), re.compile(r"^(instance|local_conv)_layer\d+\."))
"""Groups of weights that no embedding depends on: of the parts, and of deep supervision."""
_OTHER_FILES = {
    ".onnx": "an ONNX model",
    ".xml": "an OpenVINO model",
    ".bin": "the weights of an OpenVINO model",
    ".torchscript": "a TorchScript module",
    ".pt2": "a program of torch.export",
    ".engine": "a TensorRT engine",
    ".plan": "a TensorRT engine",
}


def plain_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights without what wrappers of a network put into their names.

    >>> list(plain_names({"module._orig_mod.base.conv1.weight": Tensor()}))
    ['base.conv1.weight']
    """
    return {_WRAPPERS.sub("", name): value for name, value in weights.items()}


def is_state_dict(content: object) -> bool:
    """Whether it is a mapping of names to tensors, and of nothing else."""
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    )


def refuse_other_files(path: Path) -> None:
    """Raise CheckpointError where a file's suffix says that it is an artefact, no checkpoint."""
    kind = _OTHER_FILES.get(path.suffix.lower())
    if kind is not None:
        raise CheckpointError(
            f"{path}: {kind}, no checkpoint; expected the .pt file of `sa-deploy train` (or the "
            "authors') that artefacts of any precision are exported from. A foreign ONNX model is "
            "taken by `sa-deploy adopt`, at any precision"
        )


def authors_network(weights: Mapping[str, Tensor], path: Path) -> NetworkConfig:
    """The authors' architecture with depth and features as the weights say.

    Raises:
        CheckpointError: the weights are of no ResNet that the authors' network supports.
    """
    blocks = len({key.split(".")[2] for key in weights if key.startswith("base.layer3.")})
    depth = {6: "resnet50", 23: "resnet101", 36: "resnet152"}.get(blocks)
    if depth is None or "local_conv.weight" not in weights:
        raise CheckpointError(
            f"{path}: not a checkpoint of the SA network (stage 3 has {blocks} blocks, expected "
            "6, 23 or 36 and a local_conv.weight); pass one that `sa-deploy train` or the authors' "
            "code wrote"
        )
    return NetworkConfig(
        backbone=depth, features=weights["local_conv.weight"].shape[0], attention="stages"
    )


def classes_of(weights: Mapping[str, Tensor]) -> int | None:
    """Classes that the classifiers among some weights know; ``None`` without classifiers."""
    for name, value in weights.items():
        if _CLASSIFIERS[0].match(name) and name.endswith(".weight"):
            return value.shape[0]
    return None


def load_weights(network: SANetwork, weights: Mapping[str, Tensor], *, source: str) -> list[str]:
    """Load a state dict.

    The authors' unused keys and ``num_batches_tracked`` may be there or not. Whole groups of
    classifiers may be missing, which no embedding depends on: the network then keeps zeros there.

    Returns:
        Names of the classifiers' weights that are missing.

    Raises:
        CheckpointError: another missing or unknown key, or another shape.
    """
    own = network.state_dict()
    given = {k: v for k, v in weights.items() if not UNUSED.search(k)}
    expected = {k: v for k, v in own.items() if not UNUSED.search(k)}
    left_out = _left_out(expected, given)
    missing = sorted(set(expected) - set(given) - set(left_out))
    unknown = sorted(set(given) - set(expected))
    shapes = [
        f"{k} {tuple(given[k].shape)}, expected {tuple(expected[k].shape)}"
        for k in sorted(set(given) & set(expected))
        if given[k].shape != expected[k].shape
    ]
    for what, found in (
        ("lacks", missing),
        ("has unknown", unknown),
        ("has other shapes:", shapes),
    ):
        if found:
            raise CheckpointError(
                f"{source}: {what} {_listed(found)}; the weights are of another "
                f"architecture than {network.config.backbone} with {network.config.parts} parts"
            )
    zeros = {k: own[k].new_zeros(own[k].shape) for k in left_out}
    network.load_state_dict({k: v for k, v in weights.items() if k in own} | zeros, strict=False)
    return left_out


def require_classifiers(missing: Collection[str], source: str) -> None:
    """Raise CheckpointError where classifiers are missing that what follows needs."""
    if missing:
        raise CheckpointError(
            f"{source}: lacks the classifiers ({_listed(sorted(missing))}), so that it can be "
            "embedded with, exported and evaluated, but not trained on; pass the whole checkpoint"
        )


def _left_out(expected: Collection[str], given: Collection[str]) -> list[str]:
    """Names of the groups of classifiers of which nothing is given."""
    names: list[str] = []
    for group in _CLASSIFIERS:
        if not any(group.match(name) for name in given):
            names += [name for name in expected if group.match(name)]
    return sorted(names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return "; ".join(names[:3]) + more
