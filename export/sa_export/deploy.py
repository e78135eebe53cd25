"""The network as it is deployed: crops to unit vectors, with everything constant folded in.

Folded: batch norms into their convolutions; colour order and the division by the standard deviation
into the first convolution. The mean stays a subtraction, because the convolution pads with zeros
after it.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from sa_export.kinds import FloatType, InputKind
from sa_export.lowering import plain_attention
from sa_runtime.errors import bad_value
from sa_training.attention_pool import attention_pool
from sa_training.backbones.probe import Probe
from sa_training.network import EMBEDDINGS, SANetwork
from sa_training.pixels import IMAGENET_MEAN, IMAGENET_STD

DTYPES: dict[FloatType, torch.dtype] = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSpec:
    """What goes in and out of a deployed network, and what it computes with in between.

    Attributes:
        embeddings: ``parts``, ``global`` or ``reduced``; the first one is the main output.
        input: ``uint8-nhwc``: (N, H, W, 3) uint8 BGR as OpenCV gives it; ``nchw-float``:
            (N, 3, H, W) float32 RGB scaled to 0..1. Normalisation is inside the graph for both.
        compute: type of the convolutions. Attention sums and the scaling to unit length are done in
            float32 whatever it is.
        attention_map: also return what the last map is weighted with, (N, H', W').
    """

    embeddings: tuple[str, ...] = ("parts",)
    input: InputKind = "uint8-nhwc"
    compute: FloatType = "fp32"
    attention_map: bool = False

    def __post_init__(self) -> None:
        """Check every field; raises InputError."""
        if self.input not in get_args(InputKind):
            choices = ", ".join(get_args(InputKind))
            raise bad_value("input", self.input, f"unknown; choose from {choices}")
        if self.compute not in DTYPES:
            raise bad_value("compute", self.compute, f"unknown; choose from {', '.join(DTYPES)}")
        unknown = [name for name in self.embeddings if name not in EMBEDDINGS]
        if unknown or not self.embeddings or len(set(self.embeddings)) != len(self.embeddings):
            raise bad_value(
                "embeddings",
                self.embeddings,
                f"expected each at most once of {', '.join(EMBEDDINGS)}",
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs: ``embeddings`` first, ``embeddings_KIND`` for further ones.

        >>> GraphSpec(embeddings=("parts", "global"), attention_map=True).output_names
        ('embeddings', 'embeddings_global', 'attention')
        """
        extra = tuple(f"embeddings_{name}" for name in self.embeddings[1:])
        return ("embeddings", *extra, *(("attention",) if self.attention_map else ()))


class DeployNetwork(nn.Module):
    """Crops in, embeddings out.

    Args:
        network: trained; it is copied, not changed.
        spec: what goes in and out.

    Raises:
        InputError: an attention map of a network that pools its last map without attention.
    """

    mean_131: Tensor

    def __init__(self, network: SANetwork, spec: GraphSpec) -> None:
        super().__init__()
        network = copy.deepcopy(network).cpu().float().eval()
        self.spec = spec
        self.config = network.config
        if spec.attention_map and self.config.part_normalize == "none":
            raise bad_value(
                "attention_map",
                True,
                f"this network has attention at {network.config.attention!r} on the "
                f"{network.config.backbone_attention!r}, so that its last map is pooled evenly; "
                "expected one trained with attention 'backbone' or 'both' on the 'map'",
            )
        dtype = DTYPES[spec.compute]
        self.dtype = dtype
        self.base: nn.Module = network.base
        first = fold_batch_norms(self.base, self.config.height, self.config.width)
        raw = spec.input == "uint8-nhwc"
        scale = 255.0 if raw else 1.0
        std_3 = scale * torch.tensor(IMAGENET_STD)
        mean_3 = scale * torch.tensor(IMAGENET_MEAN)
        if first is None:
            self.base = _Normalised(self.base, std_3, flip=raw)
        else:
            with torch.no_grad():
                first.weight.copy_(first.weight / std_3[:, None, None])
                if raw:
                    first.weight.copy_(first.weight.flip(1))
        self.base.to(dtype)
        self.register_buffer("mean_131", (mean_3.flip(0) if raw else mean_3)[:, None, None])
        if "reduced" in spec.embeddings and network.config.head != "linear":
            self.reduce = fuse_conv_bn_eval(network.local_conv, network.feat_bn2d).to(dtype)

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Images as ``spec`` says -> one tensor for each of its output names.

        Embeddings are (N, D) float32 with rows of unit length.
        """
        if self.spec.input == "uint8-nhwc":
            # Cast first: it is the one operation that TensorRT does on uint8.
            images = images.float().permute(0, 3, 1, 2)
        last_NCHW = self.base((images - self.mean_131).to(self.dtype))[-1]
        outputs = self._embeddings(last_NCHW)
        if self.spec.attention_map:
            outputs.append(plain_attention(last_NCHW, self.config.part_normalize).squeeze(1))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _embeddings(self, last_NCHW: Tensor) -> list[Tensor]:
        pooled: dict[int, Tensor] = {}

        def columns(parts: int) -> Tensor:
            if parts not in pooled:
                pooled[parts] = attention_pool(last_NCHW, parts, self.config.part_normalize)
            return pooled[parts]

        outputs = []
        for embedding in self.spec.embeddings:
            x = columns(1 if embedding == "global" else self.config.parts)
            if embedding == "reduced":
                # Four dimensions throughout: OpenVINO fuses reductions over three wrongly.
                x = self._reduce(x)
                x = torch.cat([x, x.mean(dim=(2, 3), keepdim=True)], dim=2)
            unit = _unit(x.float()).flatten(1)
            outputs.append(unit if embedding == "global" else _unit(unit))
        return outputs

    def _reduce(self, pooled_NCP: Tensor) -> Tensor:
        """:meth:`SANetwork.reduce`, (N, C, P) -> (N, F, P, 1) float32.

        Attention over the pooled parts is done here alone: it scales whole parts, which cancels
        where each part is brought to unit length.
        """
        if (weigh := self.config.part_weight_normalize) != "none":
            pooled_NCP = attention_pool(pooled_NCP.unsqueeze(3), self.config.parts, weigh)
        pooled_NCP1 = pooled_NCP.unsqueeze(3)
        if self.config.head == "linear":
            return pooled_NCP1.float()
        reduced_NFP1: Tensor = self.reduce(pooled_NCP1.to(self.dtype)).float()
        return F.relu(reduced_NFP1) if self.config.neck == "relu" else reduced_NFP1


def _unit(x: Tensor) -> Tensor:
    """To unit length along axis 1; zeros stay zeros."""
    length: Tensor = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    return x / length.clamp_min(1e-12)


class _Normalised(nn.Module):
    """What cannot be folded into a first convolution, because there is none: scale and order."""

    scale_311: Tensor

    def __init__(self, base: nn.Module, std_3: Tensor, *, flip: bool) -> None:
        super().__init__()
        self.base, self.flip = base, flip
        self.register_buffer("scale_311", (1 / std_3)[:, None, None])

    def forward(self, x_N3HW: Tensor) -> tuple[Tensor, ...]:
        """Pixels less their mean -> the maps."""
        x_N3HW = x_N3HW.flip(1) if self.flip else x_N3HW
        maps: tuple[Tensor, ...] = self.base(x_N3HW * self.scale_311)
        return maps


def fold_batch_norms(module: nn.Module, height: int, width: int) -> nn.Conv2d | None:
    """Fold every batch norm that alone reads a convolution into it, in place.

    Args:
        module: in evaluation mode.
        height: of its input.
        width: of its input.

    Returns:
        The convolution that reads the image; ``None`` where something else does.
    """
    probe = Probe(module, height, width)
    owners = {
        child: (owner, name) for owner in module.modules() for name, child in owner.named_children()
    }
    first = probe.first()
    for conv, norm in list(probe.folded()):
        fused = fuse_conv_bn_eval(conv, norm)
        first = fused if conv is first else first
        owner, name = owners[conv]
        setattr(owner, name, fused)
        owner, name = owners[norm]
        rest = [child for child in norm.children() if not isinstance(child, nn.Identity)]
        setattr(owner, name, nn.Sequential(*rest) if rest else nn.Identity())
    return first
