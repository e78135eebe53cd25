"""The SA network: shapes, and the authors' checkpoints against a plain recomputation."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from sa_runtime.errors import CheckpointError
from sa_training.checkpoints import load_checkpoint, weights_sha256
from sa_training.network import NetworkConfig, SANetwork

BLOCKS = (3, 4, 6, 3)


def authors_state(classes: int = 751, *, batches_tracked: bool = False) -> OrderedDict[str, Tensor]:
    """Random weights under exactly the authors' keys (ResNet-50, 296 tensors)."""
    generator = torch.Generator().manual_seed(7)
    state: OrderedDict[str, Tensor] = OrderedDict()

    def conv(key: str, out: int, inside: int, size: int = 1) -> None:
        scale = (2 / (out * size * size)) ** 0.5
        state[key] = scale * torch.randn(out, inside, size, size, generator=generator)

    def norm(key: str, channels: int) -> None:
        state[f"{key}.weight"] = 0.5 + 0.5 * torch.rand(channels, generator=generator)
        state[f"{key}.bias"] = 0.1 * torch.randn(channels, generator=generator)
        state[f"{key}.running_mean"] = 0.1 * torch.randn(channels, generator=generator)
        state[f"{key}.running_var"] = 0.5 + torch.rand(channels, generator=generator)
        if batches_tracked:
            state[f"{key}.num_batches_tracked"] = torch.tensor(3)

    def linear(key: str, out: int, inside: int) -> None:
        state[f"{key}.weight"] = torch.randn(out, inside, generator=generator)
        state[f"{key}.bias"] = torch.randn(out, generator=generator)

    conv("base.conv1.weight", 64, 3, 7)
    norm("base.bn1", 64)
    inside = 64
    for layer, (blocks, p) in enumerate(zip(BLOCKS, (64, 128, 256, 512), strict=True), start=1):
        for block in range(blocks):
            key = f"base.layer{layer}.{block}"
            conv(f"{key}.conv1.weight", p, inside)
            norm(f"{key}.bn1", p)
            conv(f"{key}.conv2.weight", p, p, 3)
            norm(f"{key}.bn2", p)
            conv(f"{key}.conv3.weight", 4 * p, p)
            norm(f"{key}.bn3", 4 * p)
            if block == 0:
                conv(f"{key}.downsample.0.weight", 4 * p, inside)
                norm(f"{key}.downsample.1", 4 * p)
            inside = 4 * p
    linear("base.fc", 1000, 2048)
    conv("local_conv.weight", 256, 2048)
    norm("feat_bn2d", 256)
    for k, channels in ((1, 256), (2, 512), (3, 1024)):
        conv(f"local_conv_layer{k}.weight", 256, channels)
        linear(f"instance_layer{k}", classes, 256)
    for part in range(7):
        linear(f"instance{part}", classes, 256)
    state["fusion_conv.weight"] = torch.randn(1, 4, 1, generator=generator)
    return state


def recompute(state: OrderedDict[str, Tensor], x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The authors' forward pass, one plain operation after another."""

    def norm(key: str, y: Tensor) -> Tensor:
        mean, var = state[f"{key}.running_mean"], state[f"{key}.running_var"]
        shape = (1, -1, 1, 1)
        scale = state[f"{key}.weight"] / torch.sqrt(var + 1e-5)
        return (y - mean.view(shape)) * scale.view(shape) + state[f"{key}.bias"].view(shape)

    y = F.conv2d(x, state["base.conv1.weight"], stride=2, padding=3)
    y = F.max_pool2d(norm("base.bn1", y).relu(), 3, 2, 1)
    outputs = []
    for layer, blocks in enumerate(BLOCKS, start=1):
        for block in range(blocks):
            key = f"base.layer{layer}.{block}"
            stride = 2 if block == 0 and layer in (2, 3) else 1
            z = norm(f"{key}.bn1", F.conv2d(y, state[f"{key}.conv1.weight"])).relu()
            z = F.conv2d(z, state[f"{key}.conv2.weight"], stride=stride, padding=1)
            z = norm(f"{key}.bn2", z).relu()
            z = norm(f"{key}.bn3", F.conv2d(z, state[f"{key}.conv3.weight"]))
            if block == 0:
                y = F.conv2d(y, state[f"{key}.downsample.0.weight"], stride=stride)
                y = norm(f"{key}.downsample.1", y)
            y = (z + y).relu()
        outputs.append(y)
    stage_logits = []
    for k, fm in enumerate(outputs[:3], start=1):
        attended = torch.empty_like(fm)
        for n in range(len(fm)):
            m = fm[n].mean(0)
            attended[n] = fm[n] * (m / m.sum())
        pooled = F.avg_pool2d(attended, (fm.shape[2], fm.shape[3]), 1)
        flat = F.conv2d(pooled, state[f"local_conv_layer{k}.weight"]).flatten(1)
        head = f"instance_layer{k}"
        stage_logits.append(F.linear(flat, state[f"{head}.weight"], state[f"{head}.bias"]))
    parts = F.avg_pool2d(outputs[3], (4, 8), (4, 8))
    out0 = parts / parts.pow(2).sum(1, keepdim=True).sqrt()
    z = norm("feat_bn2d", F.conv2d(parts, state["local_conv.weight"])).relu()
    heads = [z[:, :, i, 0] for i in range(6)] + [z.mean(2).squeeze(2)]
    logits = [
        F.linear(h, state[f"instance{i}.weight"], state[f"instance{i}.bias"])
        for i, h in enumerate(heads)
    ]
    return out0.squeeze(3), logits + stage_logits


@pytest.mark.parametrize("batches_tracked", [False, True])
def test_authors_checkpoint_gives_their_features_and_logits(
    tmp_path: Path, batches_tracked: bool
) -> None:
    state = authors_state(batches_tracked=batches_tracked)
    untracked = [k for k in state if not k.endswith("num_batches_tracked")]
    assert len(untracked) == 296
    assert sum(k.startswith("base.") for k in untracked) == 267
    path = tmp_path / "checkpoint.pth.tar"
    content = {"state_dict": state, "epoch": 100, "best_top1": 0}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    checkpoint = load_checkpoint(path)
    assert checkpoint.epoch == 100
    assert checkpoint.network.config.attention == "stages"
    x = torch.randn(2, 3, 384, 128, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        features, logits = recompute(state, x)
        output = checkpoint.network(x)
        embedding = checkpoint.network.embed(x, "parts")
    torch.testing.assert_close(embedding * 6**0.5, features.flatten(1), rtol=0, atol=1e-5)
    assert len(output.logits) == len(logits) == 10
    for got, expected in zip(output.logits, logits, strict=True):
        scale = float(expected.abs().max())
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-5)


def test_class_count_comes_from_the_authors_file(tmp_path: Path) -> None:
    path = tmp_path / "duke.pth.tar"
    torch.save({"state_dict": authors_state(classes=702), "epoch": 3, "best_top1": 0}, path)
    assert load_checkpoint(path).network.config.classes == 702


def test_missing_weights_are_named(tmp_path: Path) -> None:
    state = authors_state()
    del state["base.layer4.2.conv3.weight"]
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"state_dict": state, "epoch": 1, "best_top1": 0}, path)
    with pytest.raises(CheckpointError, match=r"lacks base\.layer4\.2\.conv3\.weight"):
        load_checkpoint(path)


@pytest.mark.parametrize("attention", ["stages", "backbone", "both", "none"])
@pytest.mark.parametrize("normalize", ["sum", "softmax"])
def test_any_size_parts_and_classes(attention: str, normalize: str) -> None:
    config = NetworkConfig(
        backbone="resnet18",
        height=112,
        width=48,
        classes=5,
        features=16,
        parts=3,
        attention=attention,  # type: ignore[arg-type]
        normalize=normalize,  # type: ignore[arg-type]
    )
    network = SANetwork(config).eval()
    x = torch.randn(2, 3, 112, 48)
    with torch.no_grad():
        output = network(x)
        assert output.pooled_NCP.shape == (2, 512, 3)
        assert [tuple(logits.shape) for logits in output.logits] == [(2, 5)] * 7
        for embedding in ("parts", "global", "reduced"):
            vectors = network.embed(x, embedding)
            assert vectors.shape == (2, network.embedding_dim(embedding))
            torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))


def test_attention_at_the_stages_alone_does_not_change_the_embedding() -> None:
    torch.manual_seed(3)
    small = {"backbone": "resnet10-thin", "height": 128, "width": 64, "classes": 4, "features": 8}
    none = SANetwork(NetworkConfig(attention="none", **small)).eval()  # type: ignore[arg-type]
    x = torch.randn(2, 3, 128, 64)
    with torch.no_grad():
        plain = none.embed(x)
        for attention, same in (("stages", True), ("backbone", False), ("both", False)):
            other = SANetwork(NetworkConfig(attention=attention, **small)).eval()  # type: ignore[arg-type]
            other.load_state_dict(none.state_dict())
            assert torch.equal(other.embed(x), plain) is same


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("backbone", "vgg", "backbone='vgg': expected one of resnet10-thin"),
        ("attention", "all", "attention='all': expected one of stages"),
        ("parts", 25, "parts=25: expected 1 to 24, the last map's rows"),
        ("dropout", 1.0, r"dropout=1.0: expected in \[0, 1\)"),
        ("width", 8, "width=8: expected at least 16 pixels"),
    ],
)
def test_config_names_field_value_and_rule(field: str, value: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NetworkConfig(**{field: value})  # type: ignore[arg-type]


def test_weights_hash_follows_the_embedding_weights_only() -> None:
    config = NetworkConfig(backbone="resnet10-thin", height=128, width=64, classes=4, features=8)
    network = SANetwork(config)
    before = weights_sha256(network)
    with torch.no_grad():
        network.get_parameter("instance0.weight").add_(1)
    assert weights_sha256(network) == before
    with torch.no_grad():
        network.get_parameter("base.conv1.weight").add_(1)
    assert weights_sha256(network) != before


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04truncated"])
def test_a_broken_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="not a readable checkpoint"):
        load_checkpoint(path)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": {}, "epoch": pytest.raises}, path)
    with pytest.raises(CheckpointError, match="more than tensors and plain values"):
        load_checkpoint(path)
