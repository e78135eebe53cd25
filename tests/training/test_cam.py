"""Class activation maps: the formula, what it sums to, degenerate maps, and the drawing."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from torch import nn

from sa_runtime.attention_pool import attention_map
from sa_runtime.crops import resize
from sa_runtime.errors import CheckpointError, InputError
from sa_training.cam import ClassActivation, class_activations
from sa_training.cam_picture import cam_picture, overlay
from sa_training.network import Attention, NetworkConfig, SANetwork
from sa_training.pixels import network_input


def network_of(
    height: int = 96,
    width: int = 32,
    *,
    parts: int = 6,
    attention: Attention = "both",
    head: Literal["parts", "global", "linear"] = "parts",
    neck: Literal["relu", "bn"] = "relu",
) -> SANetwork:
    """Random weights, batch norms with statistics of their own, classifiers that differ."""
    torch.manual_seed(5)
    config = NetworkConfig(
        backbone="resnet10-thin",
        height=height,
        width=width,
        classes=7,
        features=16,
        parts=parts,
        attention=attention,
        head=head,
        neck=neck,
        deep_supervision=False,
    )
    network = SANetwork(config)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
            if module.bias is not None:
                nn.init.normal_(module.bias)
    return network.eval()


def images_of(network: SANetwork, count: int = 2) -> NDArray[np.uint8]:
    size = (count, network.config.height, network.config.width, 3)
    return np.random.default_rng(3).integers(0, 256, size, np.uint8)


def global_logits(network: SANetwork, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, K) of the network's own forward pass, less the classifier's bias."""
    with torch.inference_mode():
        logits = network(network_input(torch.from_numpy(images))).logits[-1].numpy()
    bias = network.state_dict().get(f"instance{network.config.parts}.bias")
    values: NDArray[np.float32] = logits if bias is None else logits - bias.numpy()
    return values


@pytest.mark.parametrize(("attention", "shown"), [("stages", "gap"), ("both", "sa")])
@pytest.mark.parametrize(
    ("head", "neck", "size", "parts"),
    [
        ("linear", "relu", (96, 32), 1),  # nothing is reduced
        ("linear", "relu", (96, 32), 3),
        ("global", "bn", (96, 32), 3),  # affine reduction
        ("parts", "relu", (96, 16), 6),  # every part is one pixel, so that ReLU commutes too
    ],
)
def test_the_mean_of_a_map_is_the_logit_of_its_class(
    attention: Attention,
    shown: str,
    head: Literal["parts", "global", "linear"],
    neck: Literal["relu", "bn"],
    size: tuple[int, int],
    parts: int,
) -> None:
    network = network_of(*size, parts=parts, attention=attention, head=head, neck=neck)
    images = images_of(network)
    expected = global_logits(network, images)
    for label in (0, 6):
        for n, activation in enumerate(class_activations(network, images, label)):
            mean = getattr(activation, shown).mean()
            assert mean == pytest.approx(expected[n, label], abs=1e-4, rel=1e-4)
    other = "sa" if shown == "gap" else "gap"
    assert abs(getattr(activation, other).mean() - expected[-1, 6]) > 1e-3


def test_every_pixel_follows_the_formula() -> None:
    network = network_of()
    images = images_of(network)
    with torch.inference_mode():
        last = network.base(network_input(torch.from_numpy(images)))[-1].numpy()
    weights = {name: tensor.double().numpy() for name, tensor in network.state_dict().items()}
    attention = attention_map(last)[:, 0]
    scale = weights["feat_bn2d.weight"] / np.sqrt(weights["feat_bn2d.running_var"] + 1e-5)

    def activation_of(pixel: NDArray[np.float32], k: int) -> float:
        reduced = weights["local_conv.weight"][:, :, 0, 0] @ pixel.astype(np.float64)
        reduced = (reduced - weights["feat_bn2d.running_mean"]) * scale + weights["feat_bn2d.bias"]
        return float(weights["instance6.weight"][k] @ np.maximum(reduced, 0))

    found = class_activations(network, images)
    for n, activation in enumerate(found):
        assert activation.gap.shape == activation.sa.shape == activation.attention.shape == (6, 2)
        np.testing.assert_allclose(activation.attention, attention[n], rtol=1e-5)
        assert activation.attention.mean() == pytest.approx(1)
        for h, w in ((0, 0), (2, 1), (5, 0)):
            pixel, k = last[n, :, h, w], activation.label
            assert activation.gap[h, w] == pytest.approx(activation_of(pixel, k), rel=1e-4)
            weighted = attention[n, h, w] * pixel
            assert activation.sa[h, w] == pytest.approx(activation_of(weighted, k), rel=1e-4)


def test_the_class_is_the_predicted_one_with_its_probability() -> None:
    network = network_of()
    images = images_of(network, 5)
    with torch.inference_mode():
        logits = network(network_input(torch.from_numpy(images))).logits[6]
    for n, activation in enumerate(class_activations(network, images)):
        assert activation.label == int(logits[n].argmax())
        assert activation.probability == pytest.approx(float(logits[n].softmax(0).max()), rel=1e-4)
    (given_class,) = class_activations(network, images[:1], 3)
    assert given_class.label == 3
    assert given_class.probability == pytest.approx(float(logits[0].softmax(0)[3]), rel=1e-4)


def test_stages_are_the_attention_of_the_first_three_maps() -> None:
    network = network_of()
    images = images_of(network, 1)
    (activation,) = class_activations(network, images)
    assert [stage.shape for stage in activation.stages] == [(24, 8), (12, 4), (6, 2)]
    with torch.inference_mode():
        maps = network.base(network_input(torch.from_numpy(images)))
    for stage, map_1CHW in zip(activation.stages, maps, strict=False):
        np.testing.assert_allclose(stage, attention_map(map_1CHW.numpy())[0, 0], rtol=1e-5)


def test_an_image_does_not_depend_on_its_batch_mates() -> None:
    network = network_of()
    images = images_of(network, 3)
    together = class_activations(network, images, 1)
    for n in range(3):
        (alone,) = class_activations(network, images[n : n + 1], 1)
        np.testing.assert_allclose(alone.sa, together[n].sa, rtol=1e-4, atol=1e-4)


def test_an_all_zero_map_attends_uniformly_and_is_drawn() -> None:
    network = network_of()
    for name, parameter in network.base.get_submodule("layer4").named_parameters():
        if "bn2" in name or "downsample.1" in name:
            nn.init.zeros_(parameter)
    images = images_of(network, 1)
    (activation,) = class_activations(network, images)
    assert (activation.attention == 1).all()
    np.testing.assert_array_equal(activation.gap, activation.sa)
    assert np.ptp(activation.gap) == 0
    assert cam_picture(images[0], activation, "grey.png", (96, 32), stages=True).dtype == np.uint8


@pytest.mark.parametrize("label", [-1, 7, 751])
def test_a_label_out_of_range_names_the_classes(label: int) -> None:
    network = network_of()
    with pytest.raises(InputError, match=rf"label={label}: these weights know the classes 0 to 6"):
        class_activations(network, images_of(network), label)


def test_weights_that_are_not_finite_are_refused() -> None:
    network = network_of()
    with torch.no_grad():
        network.local_conv.weight[3, 2] = torch.nan
    with pytest.raises(CheckpointError, match="not finite; its weights are damaged"):
        class_activations(network, images_of(network))


MAP = arrays.arrays(np.float32, (6, 2), elements=st.floats(-50, 50, width=32))


@settings(max_examples=12)
@given(gap=MAP, stage=arrays.arrays(np.float32, (24, 8), elements=st.floats(0, 4, width=32)))
def test_the_picture_has_its_size_and_the_image_whatever_the_maps(
    gap: NDArray[np.float32], stage: NDArray[np.float32]
) -> None:
    activation = ClassActivation(
        label=3, probability=0.5, gap=gap, sa=-gap, attention=abs(gap), stages=(stage,) * 3
    )
    image = np.full((40, 10, 3), (10, 120, 240), np.uint8)
    narrow = cam_picture(image, activation, "a.jpg", (96, 32), stages=False)
    wide = cam_picture(image, activation, "a.jpg", (96, 32), stages=True)
    assert narrow.shape == (112 + 3 * 168 + 52, 2 * 28 + 4 * 168 + 3 * 18, 3)
    assert wide.shape == (narrow.shape[0], narrow.shape[1] + 3 * (168 + 18), 3)
    np.testing.assert_array_equal(narrow[112 : 112 + 504, 28 : 28 + 168], resize(image, 504, 168))


def test_a_map_is_brightest_over_its_peak() -> None:
    values = np.zeros((6, 2), np.float32)
    values[4, 1] = 3
    tile = np.full((96, 32, 3), 128, np.uint8)
    drawn = overlay(tile, values, 0, 3, cv2.COLORMAP_VIRIDIS)
    lightness = cv2.cvtColor(drawn, cv2.COLOR_BGR2GRAY)
    row, column = np.unravel_index(lightness.argmax(), lightness.shape)
    assert 64 <= row < 80
    assert column >= 16
    flat = overlay(tile, values * 0, 0, 0, cv2.COLORMAP_VIRIDIS)
    np.testing.assert_array_equal(flat, np.broadcast_to(drawn[0, 0], flat.shape))
