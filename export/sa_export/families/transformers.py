"""TransReID and CLIP-ReID: vision transformers under their own names, computed by timm's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sa_export.families.base import (
    HEIGHT,
    WIDTH,
    Network,
    Wanted,
    Weights,
    classes_of,
    filled,
    split_off,
)
from sa_export.preprocessing import PRESETS
from sa_runtime.errors import CheckpointError, bad_value
from sa_runtime.system.extras import require

_TRANSREID = {
    192: "vit_tiny_patch16_224",
    384: "vit_small_patch16_224",
    768: "vit_base_patch16_224",
}
_CLIP = "vit_base_patch16_clip_quickgelu_224"
_PATCH = 16
_STEPS = (16, 12, 14, 10, 8)
"""Of the patches in pixels, TransReID's and CLIP-ReID's own first; smaller ones overlap."""
_CLIP_NAMES = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_1\.", ".norm1."),
    (r"\.ln_2\.", ".norm2."),
    (r"\.attn\.in_proj_", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


def recognise_transreid(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """TransReID's plain transformer; ``None`` for other weights.

    Raises:
        CheckpointError: one whose vectors depend on the camera, or of shuffled patches (JPM).
    """
    if "base.cls_token" not in weights or "base.blocks.0.attn.qkv.weight" not in weights:
        return None
    _refuse_cameras(weights, path, "base.sie_embed", "SIE_CAMERA and SIE_VIEW")
    if any(name.startswith("b1.") for name in weights):
        raise CheckpointError(
            f"{path}: TransReID with its jigsaw branches (JPM), which shuffle patches; export it "
            "to ONNX with its own code and adopt that, or name a function that makes it (`factory`)"
        )
    base, rest = split_off(weights, r"(?!base\.)|base\.fc\.")
    own = {name.removeprefix("base."): value for name, value in base.items()}
    width = own["cls_token"].shape[-1]
    name = _TRANSREID.get(width)
    if name is None:
        raise CheckpointError(f"{path}: TransReID of width {width}; expected {list(_TRANSREID)}")
    module, size, step = _transformer(name, own, wanted)
    return Network(
        family="TransReID",
        arch=f"{name} (step {step})",
        module=filled(module, own, source=str(path), arch=f"TransReID's {name}"),
        height=size[0],
        width=size[1],
        preprocessing=PRESETS["transreid"],
        embedding="the class token before the neck's batch norm, as its configurations evaluate",
        left_out=tuple(rest),
        classes=classes_of(split_off(rest, r"(?!classifier\.)")[0]),
        notes=(f"patches every {step} pixels, which the number of positions tells",),
    )


def recognise_clip(weights: Weights, path: Path, wanted: Wanted) -> Network | None:
    """CLIP-ReID's image encoder of ViT-B/16; ``None`` for other weights.

    Raises:
        CheckpointError: one whose vectors depend on the camera, or on a ResNet.
    """
    prefix = "image_encoder."
    if not any(name.startswith(prefix) for name in weights):
        return None
    if f"{prefix}class_embedding" not in weights:
        raise CheckpointError(
            f"{path}: CLIP-ReID on a ResNet; export it to ONNX with its own code and adopt that, "
            "or name a function that makes it (`factory`)"
        )
    _refuse_cameras(weights, path, "cv_embed", "SIE_CAMERA and SIE_VIEW")
    found, rest = split_off(weights, rf"(?!{re.escape(prefix)})")
    own = {clip_name(name.removeprefix(prefix)): value for name, value in found.items()}
    projection = own.pop("proj")
    own["cls_token"] = own["cls_token"].reshape(1, 1, -1)
    own["pos_embed"] = own["pos_embed"][None]
    module, size, step = _transformer(_CLIP, own, wanted)
    filled(module, own, source=str(path), arch="CLIP-ReID's ViT-B/16")
    return Network(
        family="CLIP-ReID",
        arch=f"ViT-B/16 (step {step})",
        module=_Projected(module, projection).eval(),
        height=size[0],
        width=size[1],
        preprocessing=PRESETS["clip-reid"],
        embedding="class token and its projection before their batch norms, as it evaluates",
        left_out=tuple(rest),
        classes=classes_of(split_off(rest, r"(?!classifier\.)")[0]),
        notes=(f"patches every {step} pixels, which the number of positions tells",),
    )


def clip_name(name: str) -> str:
    """timm's name of a weight of CLIP's image encoder.

    >>> clip_name("transformer.resblocks.3.attn.in_proj_weight")
    'blocks.3.attn.qkv.weight'
    """
    for pattern, new in _CLIP_NAMES:
        name = re.sub(pattern, new, name)
    return name


class _Projected(nn.Module):
    """A class token, and its projection behind it."""

    def __init__(self, transformer: nn.Module, projection: Tensor) -> None:
        super().__init__()
        self.transformer = transformer
        self.projection = nn.Parameter(projection.float(), requires_grad=False)

    def forward(self, x_N3HW: Tensor) -> Tensor:
        token_ND = self.transformer(x_N3HW)
        return torch.cat([token_ND, token_ND @ self.projection], dim=1)


def _refuse_cameras(weights: Weights, path: Path, name: str, options: str) -> None:
    if name in weights:
        raise CheckpointError(
            f"{path}: its vectors depend on the camera of each crop ({name}, of "
            f"{weights[name].shape[0]} cameras or views), which crops alone do not tell; train it "
            f"without {options}, or name a function that fixes one camera (`factory`)"
        )


def _transformer(name: str, own: Weights, wanted: Wanted) -> tuple[Any, tuple[int, int], int]:
    """timm's network without weights, the size of its crops, and the step of its patches."""
    timm = require("timm", extra="timm", purpose=f"architecture timm/{name}")
    places = own["pos_embed"].shape[1] - 1
    size, step = _grid(places, wanted)
    rows, columns = ((side - _PATCH) // step + 1 for side in size)
    depth = len({key.split(".")[1] for key in own if key.startswith("blocks.")})
    module = timm.create_model(
        name,
        pretrained=False,
        num_classes=0,
        depth=depth,
        img_size=(rows * _PATCH, columns * _PATCH),
    )
    module.patch_embed.proj.stride = (step, step)
    module.patch_embed.strict_img_size = False
    return module, size, step


def _grid(places: int, wanted: Wanted) -> tuple[tuple[int, int], int]:
    """Size and step that give a number of patches."""
    sizes = [(HEIGHT, WIDTH), (384, 128)]
    if wanted.height and wanted.width:
        sizes = [(wanted.height, wanted.width)]
    for size in sizes:
        for step in _STEPS:
            rows, columns = ((side - _PATCH) // step + 1 for side in size)
            if rows * columns == places and all(side % _PATCH == 0 for side in size):
                return size, step
    raise bad_value(
        "height",
        wanted.height,
        f"the position embedding has {places} patches, which {sizes[0][0]}x{sizes[0][1]} pixels do "
        f"not give in steps of {', '.join(map(str, _STEPS))}; give the `height` and `width` that "
        "it was trained at",
    )
