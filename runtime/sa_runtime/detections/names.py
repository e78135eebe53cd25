"""What the columns of a table of boxes are called."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ROLES: dict[str, str] = {
    "frame": "frame frameid framenumber framenum frameno framenr frameindex frameidx",
    "id": "id trackid track objectid objid identity targetid personid trackerid",
    "left": "left bbleft bboxleft boxleft x1 xmin bbx1 bboxx1 x0 x bbx bboxx xtl",
    "top": "top bbtop bboxtop boxtop y1 ymin bby1 bboxy1 y0 y bby bboxy ytl",
    "width": "width w bbwidth bboxwidth boxwidth bbw bboxw",
    "height": "height h bbheight bboxheight boxheight bbh bboxh",
    "right": "right bbright bboxright boxright x2 xmax bbx2 bboxx2 xbr",
    "bottom": "bottom bbbottom bboxbottom boxbottom y2 ymax bby2 bboxy2 ybr",
    "cx": "cx xc xcenter xcentre centerx centrex bboxcx",
    "cy": "cy yc ycenter ycentre centery centrey bboxcy",
    "confidence": "conf confidence score detconf detscore probability prob",
    "class": "class classid cls classname category categoryid label name",
    "video": "video videoid videoname videopath videofile source file filename path clip sequence",
}
"""What a column is -> the names it is known by, without regard to case and signs; of two that fit,
the former counts."""


class Layout(NamedTuple):
    """Where the columns of a table stand; -1 for one that it lacks.

    Attributes:
        ends: the third and fourth number of a box: ``width`` and ``height``, or ``right`` and
            ``bottom``.
        centred: whether ``left`` and ``top`` are the centre of the box.
    """

    frame: int
    id: int
    left: int
    top: int
    third: int
    fourth: int
    confidence: int
    label: int
    video: int
    ends: tuple[str, str]
    centred: bool

    @property
    def corners(self) -> bool:
        """Whether the third and fourth number are edges instead of width and height."""
        return self.ends[0] == "right"

    @property
    def numbers(self) -> dict[str, int]:
        """Columns of numbers that the table has: what each means, and where it stands."""
        start = ("cx", "cy") if self.centred else ("left", "top")
        names = ("frame", "id", *start, *self.ends, "confidence")
        return {name: at for name, at in zip(names, self[:7], strict=True) if at >= 0}


def looks_like_names(fields: Sequence[str]) -> bool:
    """Whether a line's fields are names: one begins with a letter, and none is a number."""
    return any(field[:1].isalpha() for field in fields) and not any(map(_is_number, fields))


def layout_of(names: Sequence[str], given: Mapping[str, str]) -> Layout | str:
    """Which column is which.

    Args:
        names: of the columns.
        given: what a column is -> its name, where the caller says so.

    Returns:
        The layout, or what is lacking, in words.

    >>> layout_of(["Frame", "xc", "yc", "w", "h"], {}).centred
    True
    >>> layout_of(["t", "x1", "y1", "x2", "y2"], {})
    'frame'
    >>> layout_of(["t", "x1", "y1", "x2", "y2"], {"frame": "t"}).corners
    True
    """
    if absent := [f"a column {name!r}" for name in given.values() if name not in names]:
        return ", ".join(absent)
    plain = [_plain(name) for name in names]
    taken = {names.index(name) for name in given.values()}
    where = {
        role: names.index(given[role])
        if role in given
        else next(
            (
                plain.index(name)
                for name in known.split()
                if name in plain and plain.index(name) not in taken
            ),
            -1,
        )
        for role, known in ROLES.items()
    }
    sized = where["width"] >= 0 and where["height"] >= 0
    corners = where["right"] >= 0 and where["bottom"] >= 0
    cornered = where["left"] >= 0 and where["top"] >= 0
    centred = sized and where["cx"] >= 0 and where["cy"] >= 0 and not cornered
    start = ("cx", "cy") if centred else ("left", "top")
    lacking = [role for role in ("frame", *start) if where[role] < 0]
    if not corners and not sized:
        lacking.append("width and height, or right and bottom")
    if lacking:
        return ", ".join(lacking)
    # Where a file has both, the size counts: it needs no edge.
    ends = ("width", "height") if sized else ("right", "bottom")
    return Layout(
        frame=where["frame"],
        id=where["id"],
        left=where[start[0]],
        top=where[start[1]],
        third=where[ends[0]],
        fourth=where[ends[1]],
        confidence=where["confidence"],
        label=where["class"],
        video=where["video"],
        ends=ends,
        centred=centred,
    )


def _plain(name: str) -> str:
    return re.sub(r"[^0-9a-z]", "", name.lower())


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
