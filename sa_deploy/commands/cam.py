"""``sa-deploy cam``: what in an image speaks for a person, and where the network attends."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sa_deploy.options import JsonOutput, Weights
from sa_deploy.output import note, print_json, print_table, progress
from sa_runtime.errors import InputError, MissingFileError

if TYPE_CHECKING:
    from sa_runtime.arrays import Image
    from sa_training.cam import ClassActivation

_SUFFIX = ".cam.png"


def cam(
    weights: Weights,
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGES", help="Image files, and folders of them.", show_default=False
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder that the pictures are written to.")
    ],
    stages: Annotated[
        bool, typer.Option("--stages", help="Draw the attention of stages 1 to 3 as well.")
    ] = False,
    label: Annotated[
        int | None,
        typer.Option(
            metavar="CLASS",
            help="Class whose activation is drawn, counted from 0; the predicted class by default.",
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Draw class activation maps with and without spatial attention.

    A damaged image in a folder is left out with a note; one that is given by name is an error.

    Examples:
        sa-deploy cam run/checkpoint.pt query.jpg --out maps
        sa-deploy cam run/checkpoint.pt Market-1501/query --out maps --stages
    """

    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: a file; --out expects a folder for the pictures")
    pictures = _draw(weights, _find(images), out, stages, label)
    if json_output:
        print_json({"weights": str(weights), "pictures": pictures})
        return
    print_table(
        f"Class activation by {weights.name}, written to {out}",
        ("image", "class", "probability", "largest attention", "picture"),
        [
            (
                Path(entry["image"]).name,
                entry["label"],
                f"{entry['probability']:.3f}",
                f"{entry['largest_attention']:.2f}",
                Path(entry["picture"]).name,
            )
            for entry in pictures
        ],
        figures=False,
    )


def _draw(
    weights: Path, images: list[tuple[Path, bool]], out: Path, stages: bool, label: int | None
) -> list[dict[str, Any]]:
    """Write a picture of each image; what is to be said of each."""
    from sa_runtime.crops import resize
    from sa_training.cam import check_label, class_activations
    from sa_training.cam_picture import cam_picture
    from sa_training.checkpoints import load_checkpoint

    network = load_checkpoint(weights, classifiers=True).network
    check_label(network, label)
    size = (network.config.height, network.config.width)
    pictures: list[dict[str, Any]] = []
    taken: set[str] = set()
    with progress("activation maps", len(images)) as advance:
        for path, named in images:
            image = _read(path, named)
            advance()
            if image is None:
                continue
            (activation,) = class_activations(network, resize(image, *size)[None], label)
            target = out / _file_name(path, taken)
            _write(target, cam_picture(image, activation, path.name, size, stages=stages))
            pictures.append(_figures(path, target, activation))
    if not pictures:
        raise InputError(f"none of {len(images)} images could be decoded; no picture written")
    return pictures


def _find(paths: list[Path]) -> list[tuple[Path, bool]]:
    """Images in order, and whether each was given by name; our own pictures are left out."""
    from sa_runtime.sources.images import find_images

    found: list[tuple[Path, bool]] = []
    for path in paths:
        if not path.exists():
            raise MissingFileError(
                f"{path}: no such file or folder; expected images or folders of them", path=path
            )
        if path.is_dir():
            images = [image for image in find_images(path) if not image.name.endswith(_SUFFIX)]
            if not images:
                raise InputError(
                    f"{path}: holds only pictures of this command (*{_SUFFIX}); "
                    "expected the images to draw them of"
                )
            found += [(image, False) for image in images]
        else:
            found.append((path, True))
    return found


def _read(path: Path, named: bool) -> Image | None:
    from sa_runtime.decoding import read_image

    try:
        return read_image(path)
    except InputError as error:
        if named:
            raise
        note(f"skipped: {error}")
        return None


def _file_name(path: Path, taken: set[str]) -> str:
    """A name for the picture of an image, numbered where two images have one name."""
    name, count = f"{path.stem}{_SUFFIX}", 1
    while name in taken:
        count += 1
        name = f"{path.stem}-{count}{_SUFFIX}"
    taken.add(name)
    return name


def _write(target: Path, picture: Image) -> None:
    import cv2

    from sa_runtime.system.files import atomic_path

    with atomic_path(target) as temporary:
        if not cv2.imwrite(str(temporary), picture):
            raise InputError(
                f"{target}: OpenCV cannot write it; expected a folder that can be written"
            )


def _figures(path: Path, target: Path, activation: ClassActivation) -> dict[str, Any]:
    return {
        "image": str(path),
        "label": activation.label,
        "probability": activation.probability,
        "map_size": list(activation.gap.shape),
        "largest_attention": float(activation.attention.max()),
        "picture": str(target),
    }
