"""What a person sees of a demo: steps with their times, then a live table, then a closing summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from services.domain.ledger import CameraBalance
from services.embedded.demo.watch import CameraView, Latency


@dataclass(frozen=True, slots=True)
class LiveView:
    """One moment of the film.

    Attributes:
        captured: frames captured so far, by camera.
        lag_records: frames in Kafka that nobody has judged yet.
        lag_s: age of the oldest of them, seconds.
    """

    captured: Mapping[str, int]
    cameras: Mapping[str, CameraView]
    latency: Latency
    lag_records: int
    lag_s: float
    elapsed_s: float
    where: Mapping[str, str] = field(default_factory=dict)


class Screen:
    """Writes a demo to a terminal, or plain lines where there is none."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        self.console = console

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Show a step while it runs; append a note to the list it gives, shown when it is done."""
        notes: list[str] = []
        started_s = time.monotonic()
        with self.console.status(f"[bold]{name}[/] …"):
            yield notes
        seconds = time.monotonic() - started_s
        note = f"  [dim]{notes[-1]}[/]" if notes else ""
        self.console.print(
            f"[green]✓[/] {name:<34}[dim]{seconds:6.1f} s[/]{note}", highlight=False, soft_wrap=True
        )

    def say(self, sentence: str) -> None:
        """Print a sentence above whatever is live."""
        self.console.print(sentence, highlight=False)

    @contextmanager
    def live(self) -> Iterator[Live]:
        """Show views until the film is over; where there is no terminal nothing is redrawn."""
        with Live(console=self.console, refresh_per_second=4, transient=True) as live:
            yield live

    def close(self, view: LiveView, balances: Mapping[str, CameraBalance], lines: Mapping[str, str]) -> None:
        """Print the closing summary."""
        self.console.print(_balance_table(balances))
        facts = Table.grid(padding=(0, 2))
        facts.add_column(style="dim")
        facts.add_column(overflow="fold")
        for name, text in {**lines, **view.where}.items():
            facts.add_row(name, text)
        self.console.print(facts, highlight=False)


def draw(view: LiveView) -> RenderableType:
    """Return the live picture of a moment."""
    table = Table(expand=True, box=None, header_style="dim", padding=(0, 1, 0, 0))
    for name, justify in (
        ("camera", "left"),
        ("captured", "right"),
        ("judged", "right"),
        ("anomalies", "right"),
        ("quarantined", "right"),
        ("last photo", "left"),
        ("verdict, score", "left"),
    ):
        # On a narrow terminal the name of the photo gives way.
        is_whole = name != "last photo"
        table.add_column(name, justify=justify, no_wrap=is_whole, overflow="ellipsis")  # type: ignore[arg-type]  # literals of rich
    for camera, captured in sorted(view.captured.items()):
        seen = view.cameras.get(camera, CameraView())
        table.add_row(
            camera,
            str(captured),
            str(seen.judged),
            str(seen.anomalous),
            str(seen.quarantined),
            seen.last_subject,
            _verdict_text(seen),
        )
    judged = sum(seen.judged for seen in view.cameras.values())
    rate = judged / view.elapsed_s if view.elapsed_s > 0 else 0.0
    line = (
        f"{rate:.1f} frames/s   lag {view.lag_records} frames, {view.lag_s:.1f} s   "
        f"capture → stored verdict p50 {_ms(view.latency.p50_ms)}, p99 {_ms(view.latency.p99_ms)}"
    )
    where = "   ".join(f"{name}: {text}" for name, text in view.where.items())
    return Panel(Group(table, Text(line), Text(where, style="dim")), title="Loupe, live", border_style="cyan")


def _verdict_text(seen: CameraView) -> Text:
    if not seen.judged:
        return Text("waiting", style="dim")
    word, style = ("ANOMALY", "bold red") if seen.last_is_anomalous else ("normal", "green")
    return Text(f"{word} {seen.last_score:.2f}", style=style)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f} ms"


def _balance_table(balances: Mapping[str, CameraBalance]) -> Table:
    table = Table(title="Every frame accounted for", title_justify="left", box=None, header_style="dim")
    for name in ("camera", "captured", "judged", "quarantined", "shed", "missing", ""):
        table.add_column(name, justify="left" if name in ("camera", "") else "right", no_wrap=True)
    for camera, balance in sorted(balances.items()):
        table.add_row(
            camera,
            str(balance.captured),
            str(balance.judged),
            str(balance.quarantined),
            str(balance.shed),
            str(len(balance.missing)),
            "[green]balanced[/]" if balance.is_balanced else "[bold red]does not balance[/]",
        )
    return table
