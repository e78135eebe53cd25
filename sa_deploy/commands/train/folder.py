"""Which folder a training writes to: no run is lost to a later one."""

from __future__ import annotations

import itertools
from pathlib import Path

from sa_deploy.output import note

DEFAULT = Path("runs/train")


def folder_of_run(out: Path | None, resume: Path | None, *, qat: bool, is_main: bool) -> Path:
    """The folder that was asked for, or the default one with the next free number.

    Args:
        out: ``--out``.
        resume: the checkpoint to go on from.
        qat: whether its fine-tuning for int8 is written, not a run.
        is_main: say so where another folder than the default one is taken.

    Raises:
        InputError: ``out`` holds what would be lost.
    """
    from sa_runtime.errors import InputError
    from sa_training.checkpoints import holds_run, refuse_older_run
    from sa_training.qat import QAT

    if out is not None:
        if not qat:
            refuse_older_run(out, resume)
        elif (out / QAT).exists():
            raise InputError(f"--out {out}: holds a {QAT} already; choose another --out")
        return out

    def taken(folder: Path) -> bool:
        if qat:
            return (folder / QAT).exists()
        own = resume is not None and resume.resolve().parent == folder.resolve()
        return holds_run(folder) and not own

    numbered = (DEFAULT.with_name(f"{DEFAULT.name}-{n}") for n in itertools.count(2))
    folder = next(f for f in itertools.chain([DEFAULT], numbered) if not taken(f))
    if folder != DEFAULT and is_main:
        note(f"{DEFAULT}: holds an earlier run; this one goes to {folder}")
    return folder
