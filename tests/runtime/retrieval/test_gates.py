from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sa_runtime.datasets.base import ReidDataset, Sample
from sa_runtime.errors import GateError, InputError
from sa_runtime.retrieval.evaluation import RetrievalReport, evaluate_embedder
from sa_runtime.retrieval.gates import check_gates, parse_gate


@pytest.fixture(scope="module")
def report() -> RetrievalReport:
    """mAP 75 %: one of two queries has the wrong person first and its own second."""
    query = [Sample(Path("a"), 1, 0), Sample(Path("b"), 2, 0)]
    gallery = [Sample(Path("c"), 1, 1), Sample(Path("d"), 2, 1)]
    small = ReidDataset(
        name="small", root=Path("/x"), train=(), query=tuple(query), gallery=tuple(gallery)
    )
    vectors = {"a": [1.0, 0.0], "b": [0.9, 0.1], "c": [1.0, 0.0], "d": [0.0, 1.0]}
    found = evaluate_embedder(lambda paths: np.array([vectors[path.name] for path in paths]), small)
    return replace(found, model="m.onnx")


def test_limits_hold_or_are_named(report: RetrievalReport) -> None:
    assert report.mAP == 0.75
    check_gates([report], [parse_gate(text) for text in ("mAP>=75", "map<=75%", "R1>=50")])
    with pytest.raises(GateError) as caught:
        check_gates(
            [report], [parse_gate("mAP>75"), parse_gate("rank-1 >= 60"), parse_gate("r5>1")]
        )
    assert str(caught.value) == (
        "m.onnx on small: mAP 75.00 %, expected mAP>75; "
        "m.onnx on small: rank1 50.00 %, expected rank1>=60"
    )
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["mAP", "mAP=70", "speed>=70", "mAP>=", "mAP>=-1", ">=70", ""])
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^gate='.*': expected a figure and a limit in percent"):
        parse_gate(text)


def test_a_limit_is_in_percent() -> None:
    with pytest.raises(InputError, match=r"its limit is in percent; expected 0 to 100"):
        parse_gate("mAP>=700")
