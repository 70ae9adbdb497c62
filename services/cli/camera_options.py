"""The options of `loupe camera add` and `set`, each named once."""

from __future__ import annotations

from typing import Annotated

import typer

from services.domain.camera import OriginalPolicy, ShedPolicy

Id = Annotated[str, typer.Argument(metavar="ID", help="Camera id, the key of its records.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Camera ids.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Fps = Annotated[
    float | None,
    typer.Option("--fps", help="Frames per second at most; as the source gives them if not given."),
]
Project = Annotated[
    str | None, typer.Option("--project", help="Project that is to judge; routes decide if not given.")
]
AreaOption = Annotated[
    str | None,
    typer.Option("--area", metavar="L,T,W,H", help="Publish this part only, as shares: 0.1,0,0.8,1."),
]
LongestSide = Annotated[
    int | None, typer.Option("--longest-side", metavar="PX", help="Scale pictures down to this many pixels.")
]
KeepOriginal = Annotated[
    OriginalPolicy | None,
    typer.Option("--keep-original", help="Originals to keep of pictures that are cropped or scaled."),
]
NamePattern = Annotated[
    str | None,
    typer.Option(
        "--name-pattern",
        metavar="RE",
        help="Regular expression that finds part and lot in file names, by the groups part_id and lot_id.",
    ),
]
Shed = Annotated[
    ShedPolicy | None,
    typer.Option(
        "--shed",
        metavar="POLICY",
        help="What happens to frames while the spool is full: block, drop-oldest, drop-newest or sample. If "
        "not given, block for a new folder, film, S3 or push, whose pictures can wait, and drop-oldest for "
        "live and triggered cameras.",
    ),
]
SilentAfter = Annotated[
    float | None,
    typer.Option("--silent-after", metavar="S", help="Tell when no picture came for this many seconds."),
]
Secret = Annotated[
    str | None,
    typer.Option("--secret", metavar="env:NAME", help="The ingester's variable that holds user:password."),
]
Trigger = Annotated[
    bool | None, typer.Option("--trigger/--no-trigger", help="A picture per record on loupe.triggers only.")
]
Loop = Annotated[
    bool | None, typer.Option("--loop/--no-loop", help="Begin a film or folder again and again.")
]
KeepFiles = Annotated[
    bool | None,
    typer.Option("--keep-files/--move-files", help="Leave files where they are, or move to done/."),
]
