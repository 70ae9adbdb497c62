"""`loupe synth`: a sheet of synthetic defects, for a person to look at. Stores and learns nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from services.cli.layout import open_console

console = open_console()
_FILE_NAME = "synthetic-defects.png"


def synth(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Photos of good parts, as for `loupe fit`.")],
    out: Annotated[
        Path, typer.Option(metavar="FILE|DIR", help=f"A .png to write, or where {_FILE_NAME} goes.")
    ] = Path(),
    count: Annotated[int, typer.Option(min=1, max=200, help="How many spoilt photos.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="The same photos and seed give the same sheet.")] = 0,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only this kind (may be repeated); a wrong one lists them all.")
    ] = None,
) -> None:
    """Write a sheet of synthetic defects: what detectors are compared on before a real defect is seen.

    Left each photo as it is, with the defect outlined, right what became of it; under it the kind.

    Example: `loupe synth photos/ --kind nsa --kind scratch --out sheet.png`
    """
    # Half a second of libraries that `loupe synth --help` does not need.
    from services.domain.errors import NotEnoughImages
    from services.domain.label import Verdict
    from services.trainer.dataset import Dataset
    from services.trainer.folders import read_photos
    from services.trainer.synthesis.sheet import draw_sheet, samples
    from services.trainer.synthesis.spoil import KINDS

    normals = [one for one in read_photos(folder) if one.label is Verdict.NORMAL]
    # As many as are shown, and one more, so that each has another beside it.
    photos = Dataset(normals[: count + 1])
    for skipped in photos.skipped:
        console.print(Text(f"{skipped.name} is left out: {skipped.reason}", "yellow"))
    if not len(photos):
        message = f"None of the {len(normals)} photos in {folder} can be read."
        raise NotEnoughImages(message, folder=str(folder), normal_images=0)
    sheet = draw_sheet(samples(photos, count, seed, kind or KINDS))
    file = out if out.suffix.lower() == ".png" else out / _FILE_NAME
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file)
    # Unwrapped, so that it can be copied.
    typer.echo(str(file))
