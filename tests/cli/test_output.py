"""Tables before a terminal of 80 columns."""

from __future__ import annotations

import pytest

from sa_deploy.output import print_table


def test_a_table_of_figures_keeps_words_and_figures_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    figures = ("1", "12345.6", "1234.11", "1234.22", "1234.33", "1234.44", "100")
    print_table(
        "Speed",
        ("runtime", "batch", "images/s", "p50", "p90", "p99", "max", "% of limit"),
        [("onnxruntime cuda fp32", *figures), ("openvino bf16", *figures)],
    )
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    words = [word for line in lines for word in line.split()]
    assert words.count("1234.44") == 2
    assert {"onnxruntime", "cuda", "openvino", "images/s"} <= set(words)


def test_text_wraps_between_words_and_a_title_does_not_wrap(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    title = "a/long/path/" * 9
    said = " ".join(["instructions"] * 12)
    print_table(title, ("what", "detail"), [("processor", said)], figures=False)
    first, *lines = capsys.readouterr().out.splitlines()
    assert first == title
    assert max(map(len, lines)) <= 80
    assert sum(line.split().count("instructions") for line in lines) == 12
