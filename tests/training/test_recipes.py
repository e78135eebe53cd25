"""The recipes, and overriding their fields."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from sa_runtime.errors import InputError
from sa_training.network import SANetwork
from sa_training.overrides import override
from sa_training.recipes import RECIPES, Recipe, recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds_and_survives_a_checkpoint(name: str) -> None:
    chosen = recipe(name)
    assert chosen.name == name
    assert Recipe.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen
    config = chosen.network
    with torch.device("meta"):
        output = SANetwork(config)(torch.empty(2, 3, config.height, config.width))
    assert len(output.logits) == len(config.classifiers)
    assert {tuple(x.shape) for x in output.logits} == {(2, config.classes)}


def test_the_papers_settings() -> None:
    paper, authors, sa = recipe("paper"), recipe("authors"), recipe("sa")
    assert (paper.network.attention, sa.network.attention) == ("stages", "both")
    assert (paper.erase, authors.erase) == (0.5, 0.0)
    for one in (paper, authors, sa):
        assert (one.batch, one.epochs, one.step_size, one.lr) == (48, 100, 40, 0.1)
        assert (one.momentum, one.weight_decay, one.optimizer) == (0.9, 5e-4, "sgd")
        assert one.network.classifiers == (
            *(f"part{p}" for p in range(6)),
            *("global", "stage1", "stage2", "stage3"),
        )


def test_the_rows_of_the_ablation_differ_by_their_component() -> None:
    rows = {name: recipe(name) for name in RECIPES if name.startswith("ablation-")}
    assert {row.epochs for row in rows.values()} == {60}
    assert {row.erase for row in rows.values()} == {0.0}
    heads = {name: row.network.classifiers for name, row in rows.items()}
    assert heads["ablation-backbone"] == heads["ablation-backbone-sa"] == ("global",)
    assert heads["ablation-ds"] == ("global", "stage1", "stage2", "stage3")
    assert len(heads["ablation-ds-p"]) == 10
    assert {name: row.network.attention for name, row in rows.items()} == {
        "ablation-backbone": "none",
        "ablation-backbone-sa": "backbone",
        "ablation-ds": "none",
        "ablation-ds-p": "none",
        "ablation-ds-p-sa1": "backbone",
        "ablation-ds-p-sa2": "stages",
        "ablation-ds-p-sa1-sa2": "both",
    }


def test_attention_on_the_pooled_parts_changes_lengths_only() -> None:
    """Facts, section 7: it multiplies whole parts, which the length of a part cancels."""
    base = dataclasses.replace(recipe("tiny").network, attention="backbone", classes=3)
    torch.manual_seed(0)
    after = SANetwork(dataclasses.replace(base, backbone_attention="parts")).eval()
    without = SANetwork(dataclasses.replace(base, attention="none")).eval()
    without.load_state_dict(after.state_dict())
    x = torch.randn(3, 3, 128, 64)
    with torch.no_grad():
        weighted, plain = after(x).pooled_NCP, without(x).pooled_NCP
        ratio = weighted / plain
        seen = plain > 1e-3
        assert torch.allclose(ratio[seen], ratio[:, :1].expand_as(ratio)[seen], rtol=1e-3)
        mean_NP = plain.mean(dim=1)
        assert torch.allclose(ratio[:, 0], mean_NP / mean_NP.mean(dim=1, keepdim=True), rtol=1e-3)
        assert torch.allclose(after.embed(x), without.embed(x), atol=1e-6)


def test_overrides_take_texts_and_values() -> None:
    changed = override(
        recipe("tiny"),
        {"lr": "0.5", "batch": "32", "network.parts": 3, "network.deep_supervision": "false"},
    )
    assert (changed.lr, changed.batch, changed.network.parts) == (0.5, 32, 3)
    assert changed.network.classifiers == ("part0", "part1", "part2", "global")
    slower = override(recipe("strong"), {"new_backbone_lr_factor": "0.5", "pretrained": "none"})
    assert slower.backbone_lr == pytest.approx(7e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 1}, r"recipe field 'learning_rate': unknown; choose from name, batch"),
        ({"network": 1}, r"recipe field 'network': unknown"),
        ({"batch": "many"}, r"recipe field batch='many': expected a value like 64"),
        ({"network.deep_supervision": "maybe"}, r"='maybe': expected a value like True"),
        ({"network.parts": 99}, r"network parts=99: expected 1 to 8, the last map's rows"),
        ({"lr": "nan"}, r"lr=nan: expected more than 0"),
        ({"momentum": "1.5"}, r"momentum=1.5: expected in \[0, 1\)"),
        ({"weight_decay": "-1"}, r"weight_decay=-1.0: expected 0 or more"),
        ({"ema": "1"}, r"ema=1.0: expected in \[0, 1\)"),
        ({"label_smoothing": "1"}, r"label_smoothing=1.0: expected in \[0, 1\)"),
        ({"triplet_margin": "-1"}, r"triplet_margin=-1.0: expected 0 \(soft\) or more"),
        ({"triplet_weight": "-1"}, r"triplet_weight=-1.0: expected 0, or more where images_per"),
        ({"flip": "2"}, r"flip=2.0: expected a probability"),
        ({"erase": "-1"}, r"erase=-1.0: expected a probability"),
        ({"colour_jitter": "1"}, r"colour_jitter=1.0: expected in \[0, 1\)"),
        ({"pad": "64"}, r"pad=64: expected 0 or more pixels, and fewer than the input has"),
        ({"batch": "33"}, r"images_per_identity=4: expected 0, or at least 2 and a divisor"),
    ],
)
def test_overrides_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        override(recipe("tiny"), changes)


def test_an_unknown_recipe_lists_the_choices() -> None:
    with pytest.raises(InputError, match=r"recipe='big': unknown; choose from sa, paper, authors"):
        recipe("big")
