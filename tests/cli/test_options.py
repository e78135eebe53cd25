"""The command line's commands and options, frozen: a change here is a change for every user.

Regenerate with ``python tests/cli/test_options.py`` and read the difference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

FROZEN = Path(__file__).with_name("options.txt")


def listing() -> str:
    """One line a command: its name, arguments and options; first what all of them take."""
    import typer.main

    from sa_deploy.app import app

    lines: list[tuple[str, list[str]]] = []

    def walk(command: Any, name: str) -> None:
        if hasattr(command, "commands"):
            for child in sorted(command.commands):
                walk(command.commands[child], f"{name} {child}".strip())
            return
        words = [
            "/".join((*item.opts, *item.secondary_opts))
            if item.param_type_name == "option"
            else item.name.upper()
            for item in command.params
        ]
        lines.append((name, words))

    walk(typer.main.get_command(app), "")
    common = [word for word in lines[0][1] if all(word in words for _, words in lines)]
    own = [(name, [word for word in words if word not in common]) for name, words in lines]
    return "".join(
        f"{' '.join([name + ':', *words])}\n" for name, words in [("every", common), *own]
    )


def test_no_command_or_option_changed_by_accident() -> None:
    assert listing() == FROZEN.read_text()


if __name__ == "__main__":
    FROZEN.write_text(listing())
