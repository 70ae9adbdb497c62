"""`loupe inspect`: verdicts on image files. Parses, asks `judges`, prints; judges and draws nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from services.cli.layout import Column, Room, open_console, print_list
from services.domain.errors import BadRequest
from services.domain.frame import IMAGE_SUFFIXES
from services.domain.inspection import Inspection
from services.embedded.settings import EmbeddedSettings
from services.wire.event import data_of

if TYPE_CHECKING:
    from services.embedded.drawings import Drawings
    from services.embedded.judges import Judge, StackOrLocal

console = open_console()
errors = open_console(stderr=True)

_KEYS = (
    "source",
    "is_anomalous",
    "is_uncertain",
    "confidence",
    "score",
    "threshold",
    "model_version",
    "regions",
)
# Regions that are of no named type.
_UNTYPED = "anomaly"


def inspect(
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE...", help="Image files, or folders of them.")
    ],
    project: Annotated[str, typer.Option("--project", "-p", help="Which detector judges.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object a line.")] = False,
    max_regions: Annotated[
        int, typer.Option(min=0, max=50, help="How many regions of an anomalous image are named.")
    ] = 3,
    maps: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write anomaly maps there: float32 .npy of the photo's size."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write masks there: PNG, a colour per anomaly type, on white."),
    ] = None,
) -> None:
    """Judge image files with the detector of a project that serves, and store nothing.

    Works with and without a running stack. A file that is no image is named, and the others go on;
    the exit code is then 1.

    Maps and masks are written for normal photos, too, as <photo's name>.npy and .png; photos of equal names
    keep their folders. The stack does not send them, so this process judges then, with the same detector.

    Example: `loupe inspect photo.jpg line-3/ --project cookies --maps maps/`
    """
    # Half a second of libraries that `loupe inspect --help` does not need.
    from services.embedded.drawings import Drawings, names_of
    from services.embedded.judges import judge_files

    files = files_of(images)
    drawings = Drawings(maps, masks, names_of(files)) if maps or masks else None
    if drawings is not None:
        drawings.check()
    judge, stack = _judge(project, drawings)
    judged: list[Inspection] = []
    for path, found in judge_files(files, judge):
        if not isinstance(found, Inspection):
            errors.print(Text.assemble((str(path), "bold"), ": ", found.message))
            continue
        judged.append(found)
        if as_json:
            typer.echo(json.dumps(line_of(found)))
    if not as_json and judged:
        show(judged, max_regions)
        where = "in this process" if stack is None or stack.is_local else "by the running stack"
        console.print(Text(_summary(judged, where)))
    if len(judged) < len(files):
        raise typer.Exit(1)


def files_of(images: Sequence[Path]) -> list[Path]:
    """Return the files given, with the images below folders in their place, sorted.

    Raises:
        BadRequest: a folder holds no image.
    """
    files: list[Path] = []
    for image in images:
        if not image.is_dir():
            files.append(image)
            continue
        found = sorted(p for p in image.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        if not found:
            raise BadRequest(
                f"{image} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}).", folder=str(image)
            )
        files.extend(found)
    return files


def line_of(inspection: Inspection) -> dict[str, object]:
    """Return what `--json` prints of a verdict."""
    told = data_of(inspection)
    types = [{"name": name, "area_ratio": area_ratio} for name, area_ratio in types_of(inspection).items()]
    return {**{key: told[key] for key in _KEYS}, "types": types}


def types_of(inspection: Inspection) -> dict[str, float]:
    """Return the named anomaly types that were found, with the share of the image that each covers."""
    areas: dict[str, float] = {}
    for region in inspection.regions:
        if region.anomaly_type != _UNTYPED:
            areas[region.anomaly_type] = areas.get(region.anomaly_type, 0.0) + region.area_ratio
    return dict(sorted(areas.items(), key=lambda one: -one[1]))


def show(judged: Sequence[Inspection], max_regions: int) -> None:
    """Print verdicts for people."""
    has_types = any(types_of(one) for one in judged)
    columns = (
        Column("  image"),
        Column("verdict"),
        *(Column(name, is_right=True) for name in ("sure", "score", "limit")),
        *([Column("types")] if has_types else []),
        Column("where: across, down, area", room=Room.BELOW),
    )
    rows = []
    for one in judged:
        verdict, colour = ("anomalous", "red") if one.is_anomalous else ("normal", "green")
        found = ", ".join(f"{name} {area_ratio:.1%}" for name, area_ratio in types_of(one).items())
        cells: tuple[str | Text, ...] = (
            Text.assemble(("● ", colour), one.subject),
            Text(f"{verdict}, near the limit" if one.is_uncertain else verdict, colour),
            f"{one.confidence:.0%}",
            f"{one.score:.2f}",
            f"{one.threshold:.2f}",
            *([found] if has_types else []),
            where_of(one, max_regions),
        )
        rows.append(cells)
    print_list(console, columns, rows)


def where_of(inspection: Inspection, max_regions: int) -> str:
    """Return the largest regions: their centre from left and top, and their share of the image."""
    named = [
        f"{'' if region.anomaly_type == _UNTYPED else region.anomaly_type + ' '}"
        f"{region.left_ratio + region.width_ratio / 2:.0%}, "
        f"{region.top_ratio + region.height_ratio / 2:.0%}, {region.area_ratio:.1%}"
        for region in inspection.regions[:max_regions]
    ]
    left_out = len(inspection.regions) - len(named)
    return "; ".join([*named, *([f"and {left_out} more"] if named and left_out else [])])


def _judge(project: str, drawings: Drawings | None) -> tuple[Judge, StackOrLocal | None]:
    """Return who judges; the second is None where no stack is asked: none runs, or there is to be drawn."""
    from services.embedded.judges import GatewayJudge, LocalJudge, StackOrLocal
    from services.embedded.stack import running_stack

    settings = EmbeddedSettings()
    addresses = running_stack(settings)
    local = LocalJudge(settings.home_folder, addresses, project, drawings)
    if addresses is None or drawings is not None:
        return local, None
    either = StackOrLocal(GatewayJudge(addresses.gateway_grpc, project), local)
    return either, either


def _summary(judged: Sequence[Inspection], where: str) -> str:
    anomalous = sum(one.is_anomalous for one in judged)
    versions = ", ".join(sorted({f"{one.project} {one.model_version}" for one in judged}))
    images = "1 image" if len(judged) == 1 else f"{len(judged)} images"
    return f"{images}, {anomalous} anomalous; judged by {versions} {where}."
