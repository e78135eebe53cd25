"""Tables before a terminal of 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

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


LONG = "mobilenetv2_x1_4_combineall_256x128_amsgrad_ep250_stp150_b64_fb10_labelsmooth.int8.onnx"
CHINESE = "模型的名字很长_行人重识别_最终版本_二零二六年五月一日_第三次训练.onnx"


def printed(
    capsys: pytest.CaptureFixture[str], *columns: str, rows: Sequence[Sequence[str]]
) -> str:
    print_table("Title", columns, rows)
    return capsys.readouterr().out


def test_a_name_too_long_for_its_column_stands_whole_above_its_figures(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    figures = ("68.8 ±2.1", "85.9 ±1.8", "94.3 ±1.1", "96.5 ±0.9", "32.1 ±1.9")
    said = printed(
        capsys,
        *("model", "mAP", "rank-1", "rank-5", "rank-10", "mINP"),
        rows=[(name, *figures) for name in ("a.onnx", LONG, CHINESE)],
    )
    lines = said.splitlines()[3:]
    assert lines[0].split() == ["a.onnx", *" ".join(figures).split()]
    for name, place in ((LONG, 1), (CHINESE, 3)):
        assert lines[place] == name
        assert lines[place + 1].lstrip() == "  ".join(figures)
        assert lines[place + 1].index("68.8") == lines[0].index("68.8")
    assert len(lines) == 5


def test_no_column_is_lost_where_many_are_wide(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    source = "/srv/cameras/2026-05-01/entrance-north/カメラ:car:/c1_000123.mp4"
    rows = [
        ("1", "0.1234", "perhaps", source, "17", "123456", "entrance-north", "Ádám Őry", "08:00"),
        ("2", "0.2345", "nobody", source, "18", "123457", "entrance-north", "-", "08:01"),
        ("3", "0.3456", "nobody", "c2.mp4", "3", "12", "entrance-south", "-", "08:02"),
    ]
    columns = [
        "rank",
        "distance",
        "verdict",
        "source",
        "track",
        "frame",
        "camera",
        "person",
        "time",
    ]
    said = printed(capsys, *columns, rows=rows)
    assert said.count(f"source {source}\n") == 1  # once for the rows that follow
    assert said.count("source c2.mp4\n") == 1
    lines = [line for line in said.splitlines() if line[:1] in {"1", "2", "3"}]
    for line, row in zip(lines, rows, strict=True):
        assert line.split() == " ".join(row[:3] + row[4:]).split()


def test_what_looks_like_markup_or_an_emoji_is_printed_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    said = printed(capsys, "source", "rows", rows=[("clip:car:[bold].mp4", "3")])
    assert "clip:car:[bold].mp4" in said


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120])
def test_every_word_of_a_table_is_printed_whatever_the_width(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    rows = [
        (f"model-{'m' * size}", f"{size}", "set-" + "s" * (40 - size), f"{size}.25 ±1.1")
        for size in range(0, 40, 3)
    ]
    said = printed(capsys, "model", "n", "data set", "mAP", rows=rows)
    words = "".join(said.split())
    for row in rows:
        assert all("".join(cell.split()) in words for cell in row)
