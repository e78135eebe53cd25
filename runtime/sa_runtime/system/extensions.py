"""What installed packages register with sa-deploy: names of their own by entry points.

::

    [project.entry-points."sa_deploy.backbones"]
    my-net = "my_package.networks:my_net"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sa_runtime.errors import InputError

BACKBONES = "sa_deploy.backbones"
"""Group of the functions that make a backbone."""
DATASETS = "sa_deploy.datasets"
"""Group of the functions ``root -> ReidDataset``."""


def registered(group: str) -> dict[str, EntryPoint]:
    """The entry points of a group by name; nothing of theirs is imported.

    >>> registered("sa_deploy.none_of_these")
    {}
    """
    return {point.name: point for point in sorted(entry_points(group=group))}


def loaded(point: EntryPoint) -> Any:
    """What an entry point names.

    Raises:
        InputError: its package does not import, or has nothing of that name.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as exc:
        package = point.dist.name if point.dist is not None else point.module
        raise InputError(
            f"{point.name}: registered by the package {package} as {point.value}, which cannot be "
            f"loaded ({exc}); mend or remove that package"
        ) from exc
