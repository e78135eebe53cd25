"""What the documentation site shows differently from the files: fences and roles of docstrings."""

from __future__ import annotations

import re
from typing import Any

import griffe

_FENCE = re.compile(r"^```(sh|python) ([^\n{=]+)$", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc):`~?([^`]+)`")
_LITERAL = re.compile(r"\n\s*::\n\s*\n")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The reason why a fence is not run in the tests becomes its title.

    >>> on_page_markdown("```sh a GPU")
    '```sh title="a GPU"'
    """
    return _FENCE.sub(r'```\1 title="\2"', markdown)


class Roles(griffe.Extension):
    """Sphinx's roles become plain code, and its literal blocks plain blocks."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring:
            text = _LITERAL.sub("\n\n", obj.docstring.value)
            obj.docstring.value = _ROLE.sub(r"`\1`", text)
