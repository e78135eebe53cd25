"""``sa-deploy link``: the same person under several cameras."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sa_deploy.options import Dataset, JsonOutput
from sa_deploy.output import note, print_json, print_table
from sa_runtime.errors import InputError, bad_value

if TYPE_CHECKING:
    from sa_runtime.artefact.contract import Contract
    from sa_runtime.linking.fit import LinkParameters
    from sa_runtime.linking.measures import LinkMeasures
    from sa_runtime.linking.store import Identities
    from sa_runtime.linking.tracks import Tracks

_SHOWN = 12


def link(
    embeddings: Annotated[
        list[Path],
        typer.Argument(
            metavar="EMBEDDINGS",
            help="Files or folders of `sa-deploy embed` with tracked boxes, of any cameras.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FILE",
            help="Parquet file of who was where when; without it nothing is written.",
        ),
    ] = None,
    parameters: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Parameters that --fit wrote; it or --calibrated is needed to link, no number "
            "is set by default.",
        ),
    ] = None,
    calibrated: Annotated[
        Path | None,
        typer.Option(
            metavar="GALLERY",
            help="Take the threshold that `sa-deploy calibrate` stored with this gallery: below it "
            "two tracks are one person, at its stated rate of error; none by default.",
        ),
    ] = None,
    fit: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Learn the parameters from these people, who are known, and write them as JSON; "
            "without it people are linked.",
        ),
    ] = None,
    dataset: Dataset = "auto",
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir",
            metavar="FOLDER",
            help="Folder of a data set whose images the embeddings are of, for --fit; without it "
            "track numbers are taken as persons.",
        ),
    ] = None,
    known: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Identities of an earlier run, which new tracks join; everyone is new without.",
        ),
    ] = None,
    truth: Annotated[
        bool,
        typer.Option("--truth", help="Track numbers are persons, as of drawn videos: measure."),
    ] = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="PNG file that shows identities over time; none by default."
        ),
    ] = None,
    json_output: JsonOutput = False,
) -> None:
    """Find who is the same person under several cameras, from tracks.

    Tracks that are seen at once under one camera are two persons; what a camera adds to its
    vectors is taken off. Parameters are learnt from other people first, with --fit, or come from
    the thresholds of a calibrated gallery.

    Examples:
        sa-deploy link market.parquet -d market --data-dir Market-1501 --fit link.json
        sa-deploy link c1.parquet c2.parquet --parameters link.json --out who.parquet
    """
    from sa_runtime.linking.picture import check_timeline, draw_timeline
    from sa_runtime.linking.store import check_identities, write_identities
    from sa_runtime.system.files import refuse_twice

    refuse_twice(embeddings)
    inputs = [*embeddings, *(path for path in (parameters, known) if path is not None)]
    if fit is not None:
        _fit(embeddings, fit, dataset, data_dir, json_output)
        return
    chosen, origin = _parameters(parameters, calibrated)
    if out is not None:
        check_identities(out, inputs)
    if picture is not None:
        check_timeline(picture, inputs)
    found = _linked(embeddings, chosen, origin, known)
    measures = _measured(found) if truth else None
    if out is not None:
        write_identities(out, found)
        note(f"identities: {out}")
    if picture is not None:
        draw_timeline(picture, found)
        note(f"picture: {picture}")
    _print(found, measures, json_output)


def _parameters(parameters: Path | None, calibrated: Path | None) -> tuple[LinkParameters, Path]:
    """What linking goes by, and where it stands."""
    from sa_runtime.linking.fit import LinkParameters

    if (parameters is None) == (calibrated is None):
        raise InputError(
            "--parameters: expected the file of an earlier run with --fit, or --calibrated GALLERY"
        )
    if parameters is not None:
        return LinkParameters.read(parameters), parameters
    from sa_runtime.gallery.gallery import Gallery

    assert calibrated is not None
    gallery = Gallery(calibrated)
    made = gallery.calibration
    if made is None:
        raise InputError(
            f"--calibrated {calibrated}: no thresholds are stored with it; run "
            f"`sa-deploy calibrate {calibrated}` first"
        )
    found = LinkParameters.calibrated(gallery.contract.space, made.match_below, made.persons)
    return found, calibrated


def _linked(
    embeddings: list[Path], chosen: LinkParameters, origin: Path, known: Path | None
) -> Identities:
    from sa_runtime.artefact.contract import require_same_space
    from sa_runtime.linking.link import link_tracks
    from sa_runtime.linking.store import Identities, read_identities, with_known

    tracks, contract = _read(embeddings)
    names = (str(origin), str(embeddings[0]))
    require_same_space(chosen.space, contract.space, names=names)
    before = None
    if known is not None:
        earlier = read_identities(known)
        require_same_space(earlier.contract.space, contract.space, names=(str(known), names[1]))
        tracks, before = with_known(tracks, earlier)
    links = link_tracks(tracks, chosen.threshold, known=before)
    return Identities(tracks=tracks, links=links, contract=contract)


def _read(embeddings: list[Path]) -> tuple[Tracks, Contract]:
    from sa_runtime.linking.tracks import tracks_of
    from sa_runtime.outputs.read import read_embeddings

    stored = read_embeddings(*embeddings)
    return tracks_of(stored, name=str(embeddings[0])), stored.contract


def _fit(
    embeddings: list[Path],
    fit: Path,
    dataset: str,
    data_dir: Path | None,
    json_output: bool,
) -> None:
    from sa_runtime.datasets.loading import load_dataset
    from sa_runtime.linking.fit import World, fit_links
    from sa_runtime.linking.tracks import tracks_of_dataset
    from sa_runtime.outputs.read import read_embeddings
    from sa_runtime.system.files import refuse_inputs

    if data_dir is None and dataset != "auto":
        raise InputError("--dataset: expected --data-dir too")
    refuse_inputs(fit, embeddings, parameter="fit")
    if fit.suffix.lower() != ".json":
        raise bad_value("fit", str(fit), "is written as JSON; expected NAME.json")
    if data_dir is None:
        tracks, contract = _read(embeddings)
        person = tracks.number
    else:
        stored = read_embeddings(*embeddings)
        contract = stored.contract
        images = load_dataset(dataset, data_dir)
        tracks, person = tracks_of_dataset(stored, images, name=str(embeddings[0]))
    found = fit_links([World(tracks=tracks, person=person)], contract.space)
    found.write(fit)
    note(f"parameters: {fit}")
    if json_output:
        print_json({"parameters": str(fit), **_fields(found)})
        return
    print_table("Learnt from known people", ("", "value"), _fields(found).items())


def _fields(found: object) -> dict[str, object]:
    import dataclasses

    values = dataclasses.asdict(found)  # type: ignore[call-overload]
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()
    }


def _measured(found: Identities) -> LinkMeasures:
    from sa_runtime.linking.measures import measure_links

    tracks = found.tracks
    return measure_links(found.links.identity, tracks.number, tracks.rows)


def _print(found: Identities, measures: LinkMeasures | None, json_output: bool) -> None:
    visits = found.visits()
    counts = {
        "tracks": len(found.tracks),
        "cameras": len(set(found.tracks.camera)),
        "identities": found.count,
        "across_cameras": found.across_cameras,
    }
    if json_output:
        measured = None if measures is None else measures.to_dict()
        print_json({**counts, "measures": measured, "visits": visits})
        return
    across = [visit for visit in visits if visit["certainty"] is not None]
    print_table(
        f"Who was where when: {counts['identities']:,} identities on {counts['tracks']:,} tracks, "
        f"{counts['across_cameras']:,} under several cameras",
        ("identity", "camera", "track", "from", "to", "certainty"),
        [
            tuple(
                "-" if visit[key] is None else visit[key]
                for key in ("identity", "camera", "track_id", "start", "end", "certainty")
            )
            for visit in across[:_SHOWN]
        ],
    )
    if len(across) > _SHOWN:
        typer.echo(f"{len(across) - _SHOWN:,} more are in the file that --out names")
    if measures is not None:
        print_table(
            "Against the truth, %",
            ("measure", "value"),
            [
                ("IDF1", f"{100 * measures.idf1:.2f}"),
                ("precision of pairs", f"{100 * measures.precision:.2f}"),
                ("recall of pairs", f"{100 * measures.recall:.2f}"),
            ],
        )
