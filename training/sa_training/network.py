"""The parameter-free Spatial Attention network (Wang et al., arXiv 1811.12150).

Attribute names follow the authors' checkpoints (``base``, ``local_conv``, ``feat_bn2d``,
``instance0..P``, ``local_conv_layer1..3``, ``instance_layer1..3``), so that those load as they are.
Shape suffixes: N images, C channels, H x W map, P parts, F reduced features, K classes,
D embedding.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sa_runtime.attention_pool import NORMALIZATIONS, Normalize
from sa_runtime.errors import bad_value, check_fields
from sa_training.attention_pool import attention_pool
from sa_training.backbones import backbone, check_name, facts, plain_name

Attention = Literal["stages", "backbone", "both", "none"]
ATTENTIONS: tuple[Attention, ...] = ("stages", "backbone", "both", "none")
EMBEDDINGS = ("parts", "global", "reduced")
HEADS = ("parts", "global", "linear")
STAGES = (1, 2, 3)
"""Stages that carry deep supervision."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Architecture of an :class:`SANetwork`.

    Attributes:
        backbone: a name that :mod:`sa_training.backbones.table` knows: resnet50, mobilenet_v2,
            timm:NAME, package.module:function, ...; timm/NAME and torchvision/NAME mean the same.
        height, width: of the input in pixels.
        classes: training identities K.
        features: channels F of the reduced part features.
        parts: horizontal parts P; 1 is a single global branch.
        attention: where spatial attention stands: in the deep supervision of ``stages`` 1 to 3
            (the paper's main results), before the pooling of the ``backbone``'s last map,
            ``both`` or ``none``.
        normalize: of the attention, ``sum`` (authors' code) or ``softmax`` (paper's text).
        deep_supervision: whether stages 1 to 3 carry classifiers, where the backbone has stages.
        stage_scale: ``map`` divides the deep supervision's pooled features by H*W as the authors'
            code does; ``unit`` does not.
        dropout: probability, on the pooled part features.
        head: ``parts`` (the authors': a classifier for each part and one for their mean),
            ``global`` (only the one for the mean: the ablation's bare backbone) or ``linear`` (one
            classifier on the pooled map, no reduction: plain image classification).
        neck: what the part classifiers read after reduction and batch norm: ``relu`` (the
            authors') or ``bn``, the BNNeck of Luo et al. (arXiv 1903.07071): no ReLU, no bias.
        backbone_attention: what attention in the backbone weighs: the ``map`` before pooling, or
            the pooled ``parts`` (both stand in the authors' ablation).
    """

    backbone: str = "resnet50"
    height: int = 384
    width: int = 128
    classes: int = 751
    features: int = 256
    parts: int = 6
    attention: Attention = "both"
    normalize: Normalize = "sum"
    deep_supervision: bool = True
    stage_scale: Literal["map", "unit"] = "map"
    dropout: float = 0.5
    head: Literal["parts", "global", "linear"] = "parts"
    neck: Literal["relu", "bn"] = "relu"
    backbone_attention: Literal["map", "parts"] = "map"

    def __post_init__(self) -> None:
        """Check every field; raises InputError naming field, value and rule."""
        object.__setattr__(self, "backbone", plain_name(self.backbone))
        rules: tuple[tuple[str, bool, str], ...] = (
            ("attention", self.attention in ATTENTIONS, f"one of {', '.join(ATTENTIONS)}"),
            ("normalize", self.normalize in NORMALIZATIONS, f"one of {', '.join(NORMALIZATIONS)}"),
            ("stage_scale", self.stage_scale in ("map", "unit"), "map or unit"),
            ("classes", self.classes >= 1, "at least 1"),
            ("features", self.features >= 1, "at least 1"),
            ("dropout", 0 <= self.dropout < 1, "in [0, 1)"),
            ("head", self.head in HEADS, f"one of {', '.join(HEADS)}"),
            ("neck", self.neck in ("relu", "bn"), "relu or bn"),
            ("backbone_attention", self.backbone_attention in ("map", "parts"), "map or parts"),
            ("width", self.width >= 16, "at least 16 pixels"),
            ("height", self.height >= 16, "at least 16 pixels"),
        )
        check_fields(self, rules, prefix="network ")
        check_name(self.backbone)
        rows = self.map_height
        parts_fit = ("parts", 1 <= self.parts <= rows, f"1 to {rows}, the last map's rows")
        check_fields(self, (parts_fit,), prefix="network ")

    @property
    def map_height(self) -> int:
        """Rows of the last feature map."""
        return facts(self.backbone, self.height, self.width).height

    @property
    def supervised(self) -> tuple[int, ...]:
        """Stages that carry classifiers."""
        staged = facts(self.backbone, self.height, self.width).staged
        return STAGES if self.deep_supervision and staged else ()

    @property
    def part_normalize(self) -> Normalize:
        """Normalisation of the attention that pools the last map."""
        return self._backbone_normalize if self.backbone_attention == "map" else "none"

    @property
    def part_weight_normalize(self) -> Normalize:
        """Normalisation of the attention that weighs the pooled parts."""
        return self._backbone_normalize if self.backbone_attention == "parts" else "none"

    @property
    def _backbone_normalize(self) -> Normalize:
        return self.normalize if self.attention in ("backbone", "both") else "none"

    @property
    def stage_normalize(self) -> Normalize:
        """Normalisation of the attention that pools stages 1 to 3."""
        return self.normalize if self.attention in ("stages", "both") else "none"

    @property
    def classifiers(self) -> tuple[str, ...]:
        """Names of the logits, in the order of :attr:`Output.logits`.

        >>> NetworkConfig(parts=2).classifiers
        ('part0', 'part1', 'global', 'stage1', 'stage2', 'stage3')
        """
        parts = [f"part{part}" for part in range(self.parts)] if self.head == "parts" else []
        stages = [f"stage{k}" for k in self.supervised]
        return (*parts, "global", *stages)


class Output(NamedTuple):
    """What the network returns in training and evaluation alike.

    Attributes:
        pooled_NCP: pooled parts of the last map, before dropout and reduction.
        logits: P part logits, the global one, then those of stages 1 to 3; each (N, K). Named
            by :attr:`NetworkConfig.classifiers`.
    """

    pooled_NCP: Tensor
    logits: tuple[Tensor, ...]


class SANetwork(nn.Module):
    """The SA network.

    Args:
        config: its architecture.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.base = backbone(
            config.backbone,
            config.height,
            config.width,
            positive=(config.stage_normalize == "sum", config.part_normalize == "sum"),
        )
        *stage_channels, channels = self.base.channels
        self.drop = nn.Dropout(config.dropout)
        self.features = channels if config.head == "linear" else config.features
        if config.head != "linear":
            self.local_conv = nn.Conv2d(channels, self.features, 1, bias=False)
            self.feat_bn2d = nn.BatchNorm2d(self.features)
        for part in range(0 if config.head == "parts" else config.parts, config.parts + 1):
            classifier = nn.Linear(self.features, config.classes, bias=config.neck == "relu")
            self.add_module(f"instance{part}", classifier)
        for k in config.supervised:
            reduce = nn.Conv2d(stage_channels[k - 1], config.features, 1, bias=False)
            self.add_module(f"local_conv_layer{k}", reduce)
            self.add_module(f"instance_layer{k}", nn.Linear(config.features, config.classes))
        self.initialise()

    def initialise(self, *, pretrained: bool = False) -> None:
        """Random weights as the authors set them.

        Convolutions Kaiming-normal over fan out, batch norms 1 and 0, classifiers N(0, 0.001).
        Backbones that are no ResNets keep the initialisation of their own code.

        Args:
            pretrained: leave the backbone as it is and, as theirs then, the deep supervision's
                convolutions at PyTorch's own initialisation.
        """
        kept = set(self.base.modules()) if pretrained or not self.base.authors_start else set()
        for name, module in self.named_modules():
            if module in kept:
                continue
            if isinstance(module, nn.Conv2d) and pretrained and name.startswith("local_conv_layer"):
                module.reset_parameters()
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x_N3HW: Tensor) -> Output:
        """(N, 3, height, width) float, RGB, ImageNet-normalised -> :class:`Output`."""
        *stages, last_NCHW = self.base(x_N3HW)
        pooled_NCP = self.pool(last_NCHW, self.config.parts)
        reduced_NFP = self.reduce(self.drop(pooled_NCP))
        columns = reduced_NFP.unbind(dim=2) if self.config.head == "parts" else ()
        logits = [self.get_submodule(f"instance{p}")(column) for p, column in enumerate(columns)]
        logits.append(self.get_submodule(f"instance{self.config.parts}")(reduced_NFP.mean(dim=2)))
        if self.config.supervised:
            logits += [
                self._stage_logits(k, map_NCHW) for k, map_NCHW in zip(STAGES, stages, strict=True)
            ]
        return Output(pooled_NCP, tuple(logits))

    def pool(self, last_NCHW: Tensor, parts: int) -> Tensor:
        """The last map -> its parts, (N, C, P), under the backbone's attention."""
        pooled_NCP = attention_pool(last_NCHW, parts, self.config.part_normalize)
        if self.config.part_weight_normalize != "none":
            columns_NCP1 = pooled_NCP.unsqueeze(3)
            pooled_NCP = attention_pool(columns_NCP1, parts, self.config.part_weight_normalize)
        return pooled_NCP

    def reduce(self, pooled_NCP: Tensor) -> Tensor:
        """(N, C, P) -> (N, F, P): convolution and batch norm shared by the parts, and the neck.

        The head ``linear`` reduces nothing.
        """
        if self.config.head == "linear":
            return pooled_NCP
        reduced_NFP: Tensor = self.feat_bn2d(self.local_conv(pooled_NCP.unsqueeze(3))).squeeze(3)
        return F.relu(reduced_NFP) if self.config.neck == "relu" else reduced_NFP

    def embed(self, x_N3HW: Tensor, embedding: str = "parts") -> Tensor:
        """Embeddings of unit length.

        Args:
            x_N3HW: as :meth:`forward` takes it.
            embedding: ``parts`` (the authors' test feature: each part's C channels to unit length,
                index = channel * P + part, the whole to unit length), ``global`` (the last map
                pooled once) or ``reduced`` (parts and their mean after the reduction).

        Returns:
            (N, D) float32.

        Raises:
            InputError: an unknown embedding.
        """
        last_NCHW = self.base(x_N3HW)[-1]
        if embedding == "global":
            columns_NCP = self.pool(last_NCHW, 1)
        elif embedding in ("parts", "reduced"):
            columns_NCP = self.pool(last_NCHW, self.config.parts)
        else:
            raise bad_value("embedding", embedding, f"expected one of {', '.join(EMBEDDINGS)}")
        if embedding == "reduced":
            reduced_NFP = self.reduce(columns_NCP)
            columns_NCP = torch.cat([reduced_NFP, reduced_NFP.mean(dim=2, keepdim=True)], dim=2)
        unit_NCP = F.normalize(columns_NCP.float(), dim=1)
        return F.normalize(unit_NCP.flatten(1), dim=1)

    def embedding_dim(self, embedding: str) -> int:
        """D of an embedding."""
        channels = self.base.channels[-1]
        return {
            "parts": channels * self.config.parts,
            "global": channels,
            "reduced": self.features * (self.config.parts + 1),
        }[embedding]

    def _stage_logits(self, k: int, map_NCHW: Tensor) -> Tensor:
        pooled_NC1 = attention_pool(map_NCHW, 1, self.config.stage_normalize)
        if self.config.stage_scale == "map" and self.config.stage_normalize != "none":
            pooled_NC1 = pooled_NC1 / (map_NCHW.shape[2] * map_NCHW.shape[3])
        reduced_NF11 = self.get_submodule(f"local_conv_layer{k}")(pooled_NC1.unsqueeze(3))
        result: Tensor = self.get_submodule(f"instance_layer{k}")(reduced_NF11.flatten(1))
        return result
