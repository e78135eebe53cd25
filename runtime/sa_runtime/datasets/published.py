"""How much each data set holds according to those who made it."""

from __future__ import annotations

from typing import NamedTuple

from sa_runtime.datasets.base import Split


class Published(NamedTuple):
    """Images used (junk left out) and ids (a distractor id counted), None where it varies."""

    images: int | None
    persons: int


PUBLISHED: dict[str, dict[Split, Published]] = {
    # 19,732 files in bounding_box_test, of which 3,819 are junk; 750 ids and the distractors' 0.
    "market": {
        "train": Published(12_936, 751),
        "query": Published(3_368, 750),
        "gallery": Published(15_913, 751),
    },
    # 702 ids that are sought, and 408 that only one camera saw.
    "duke": {
        "train": Published(16_522, 702),
        "query": Published(2_228, 702),
        "gallery": Published(17_661, 1_110),
    },
    "cuhk03-labelled": {
        "train": Published(7_368, 767),
        "query": Published(1_400, 700),
        "gallery": Published(5_328, 700),
    },
    "cuhk03-detected": {
        "train": Published(7_365, 767),
        "query": Published(1_400, 700),
        "gallery": Published(5_332, 700),
    },
    "cuhk03-labelled-classic": {
        "train": Published(None, 1_367),
        "query": Published(None, 100),
        "gallery": Published(None, 100),
    },
    "cuhk03-detected-classic": {
        "train": Published(None, 1_367),
        "query": Published(None, 100),
        "gallery": Published(None, 100),
    },
    # Training images include those of list_val.txt.
    "msmt17": {
        "train": Published(32_621, 1_041),
        "query": Published(11_659, 3_060),
        "gallery": Published(82_161, 3_060),
    },
}
