"""The demo's steps in order: parts, stack and fit side by side, host, film, prove.

Every step is the product's own; this file only says when. Nothing is judged here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from rich.console import Console
from sqlalchemy import Engine, select

from services.adapters.broker.kafka import KafkaBrokerProducer
from services.adapters.broker.lag import LagMeter
from services.adapters.broker.reader import KafkaTopicReader
from services.adapters.database import open_engine, reading
from services.adapters.database.tables import hostings
from services.adapters.object_store import s3_store
from services.domain.errors import RetryLater, StopProcess, UnknownProject
from services.domain.inspection import Inspection
from services.domain.ledger import CameraBalance, all_balanced
from services.domain.model_version import FitOptions, TrainingRequest
from services.domain.topics import FRAMES
from services.embedded import stack
from services.embedded.demo.filming import Filming
from services.embedded.demo.plan import DemoPlan, plan_from_folder, plan_synthetic
from services.embedded.demo.report import report_of
from services.embedded.demo.screen import LiveView, Screen, draw
from services.embedded.demo.watch import Watcher
from services.embedded.judges import GatewayJudge, judge_files
from services.embedded.promotion import promotion_of
from services.embedded.settings import EmbeddedSettings
from services.embedded.stack import StackAddresses
from services.results.ledger import prove
from services.trainer.fit import FittedModel, fit_model
from services.trainer.registry import new_version
from services.vision.variants import MODEL_FILE
from services.wire.model import encode_announcement

PROJECT = "demo"
STREAM_GROUP = "loupe-stream"
# Ray Serve starts the application in 5 s and the model loads in 2 s; a machine busy with other
# things may take several times that.
HOSTED_DEADLINE_S = 120.0
# After the last frame nothing should take longer than a part's restart; Kafka, Triton and Ray are
# all back within 30 s of a SIGKILL.
DRAIN_DEADLINE_S = 180.0
_LOOK_EVERY_S = 0.25
# Calls go to units by chance; so many reach each of two with a chance of 1 - 2**-11.
_ASKED_PER_UNIT = 6


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What a person asked for.

    Attributes:
        images: folder with `normal/` and maybe `anomaly/`; None films the synthetic line.
        fps: frames per second of each camera.
        keep: leave the stack running afterwards.
        report: where to write the JSON report.
    """

    images: Path | None = None
    cameras: int = 2
    fps: float = 3.0
    keep: bool = False
    report: Path | None = None
    seed: int = 0


@dataclass(slots=True)
class _Times:
    """Seconds per phase, for the report."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        started_s = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - started_s, 3)


class Demo:
    """One run of the main job."""

    def __init__(self, options: DemoOptions, settings: EmbeddedSettings, console: Console) -> None:
        """Prepare; nothing is started yet."""
        self._options = options
        self._settings = settings
        self._screen = Screen(console)
        self._times = _Times()

    def run(self) -> bool:
        """Do the whole job and tell whether the ledger balances.

        Raises:
            LoupeError: a step cannot be done; the sentence says why and what to do.
        """
        was_running = stack.running_stack(self._settings) is not None
        started_s = time.monotonic()
        try:
            with self._screen.step("photos chosen") as notes, self._times.measure("setup"):
                plan = self._plan()
                filmed = sum(len(film.images) for film in plan.films)
                notes.append(f"{len(plan.train)} to learn from, {filmed} to film, in {plan.folder}")
            addresses, fitted = self._up_and_fit(plan)
            engine = open_engine(addresses.database_url)
            self._host(plan, addresses, engine, fitted)
            view, watcher = self._film(plan, addresses, engine)
            is_proved = self._prove(addresses, engine, watcher)
            balances = watcher.balances()
            self._times.seconds["total"] = round(time.monotonic() - started_s, 3)
            report = self._report(plan, fitted, watcher, balances, is_proved=is_proved)
            self._screen.close(view, balances, self._summary(report, fitted))
            engine.dispose()
        finally:
            if not (self._options.keep or was_running):
                with self._screen.step("stack stopped"):
                    stack.down(self._settings)
        return is_proved

    def _plan(self) -> DemoPlan:
        options = self._options
        if options.images is not None:
            return plan_from_folder(options.images, cameras=options.cameras, seed=options.seed)
        folder = self._settings.home_folder.path / "demo" / f"line-{options.seed}"
        return plan_synthetic(folder, cameras=options.cameras, seed=options.seed)

    def _up_and_fit(self, plan: DemoPlan) -> tuple[StackAddresses, FittedModel]:
        """Start the stack while the detector is fitted: they share two cores, but mostly wait in turn."""
        with ThreadPoolExecutor(1, "fit") as pool:
            fitting = pool.submit(self._fit, plan)
            with self._screen.step("stack up") as notes, self._times.measure("up"):
                addresses = stack.up(self._settings)
                notes.append("Kafka, Redis, S3, Triton, Ray, ingest, results, trainer, hosting")
            with self._screen.step("detector fitted") as notes:
                fitted = fitting.result()
                manifest = fitted.manifest
                notes.append(
                    f"{manifest.train_images} photos in {self._times.seconds['fit']:.1f} s, "
                    f"threshold {manifest.calibration.threshold:.2f}"
                )
        for warning in fitted.manifest.warnings:
            self._screen.say(f"[yellow]![/] {warning}")
        return addresses, fitted

    def _fit(self, plan: DemoPlan) -> FittedModel:
        version = new_version(datetime.now(UTC), uuid4().hex[:4])
        with self._times.measure("fit"):
            return fit_model(
                plan.train,
                project=PROJECT,
                version=version,
                out_dir=self._settings.home_folder.path / "demo" / "models",
                options=FitOptions(seed=self._options.seed),
            )

    def _host(self, plan: DemoPlan, addresses: StackAddresses, engine: Engine, fitted: FittedModel) -> None:
        """Register and announce the version, and wait until it is served."""
        store = s3_store(addresses.s3_endpoint, addresses.s3_key, addresses.s3_secret, addresses.s3_region)
        with self._screen.step("model served") as notes:
            # In process: the replica that loads it proves it in Triton, and somebody is watching.
            promotion = promotion_of(self._settings.home_folder, engine, store, None)
            asked = TrainingRequest("", PROJECT, datetime.now(UTC))
            decision = promotion.consider(fitted.folder, fitted.manifest, asked)
            if not decision.is_promoted:
                raise StopProcess(" ".join(decision.reasons))
            announcement = promotion.registry.latest(PROJECT)
            producer = KafkaBrokerProducer(addresses.kafka_bootstrap)
            producer.send(encode_announcement(announcement)).result(30)
            producer.close()
            self._wait_until_hosted(engine, announcement.version)
            self._wait_until_answering(addresses, plan, announcement.version)
            notes.append(f"{addresses.units} inference units, version {announcement.version}")

    def _wait_until_hosted(self, engine: Engine, version: str) -> None:
        query = select(hostings).where(hostings.c.project == PROJECT)
        end_s = time.monotonic() + HOSTED_DEADLINE_S
        said = "nothing yet"
        while time.monotonic() < end_s:
            with reading(engine) as connection:
                row = connection.execute(query).first()
            if row is not None and row.version == version:
                if row.status == "HOSTED":
                    return
                said = f"{row.status} {row.message}".strip()
                if row.status == "HOSTING_FAILED":
                    break
            time.sleep(_LOOK_EVERY_S)
        raise StopProcess(
            f"The model was not served within {HOSTED_DEADLINE_S:.0f} s; hosting says: {said}. "
            "See `loupe logs hosting` and `loupe logs ray`."
        )

    def _wait_until_answering(self, addresses: StackAddresses, plan: DemoPlan, version: str) -> None:
        """Ask the synchronous door until only this version answers.

        Where another version was served before, the units swap one by one without a gap, and frames
        filmed meanwhile would be judged by the old one.
        """
        judge = GatewayJudge(addresses.gateway_grpc, PROJECT)
        paths = [plan.folder / plan.train[0].name] * (_ASKED_PER_UNIT * addresses.units)
        end_s = time.monotonic() + HOSTED_DEADLINE_S
        while True:
            said = "another version answers"
            try:
                answers = [found for _, found in judge_files(paths, judge)]
            except (RetryLater, UnknownProject) as error:
                answers, said = [], error.message
            if {one.model_version for one in answers if isinstance(one, Inspection)} == {version}:
                return
            if time.monotonic() > end_s:
                raise StopProcess(f"Version {version} does not answer at the gateway: {said}")
            time.sleep(_LOOK_EVERY_S)

    def _film(self, plan: DemoPlan, addresses: StackAddresses, engine: Engine) -> tuple[LiveView, Watcher]:
        """Let the cameras run and show what is stored, until every frame has an end."""
        filming = Filming(
            plan,
            addresses.kafka_bootstrap,
            fps=self._options.fps,
            project=PROJECT,
            spool_folder=self._settings.home_folder.path / "spool" / "demo",
        )
        watcher = Watcher(engine, filming, datetime.now(UTC))
        started_s = time.monotonic()
        with (
            closing(KafkaTopicReader(addresses.kafka_bootstrap)) as frames,
            self._times.measure("stream"),
            filming,
            self._screen.live() as live,
        ):
            lag = LagMeter(frames, FRAMES.name, STREAM_GROUP)
            while True:
                behind = lag.measure(datetime.now(UTC))
                view = LiveView(
                    captured=filming.captured(),
                    cameras=watcher.cameras(),
                    latency=watcher.latency(),
                    lag_records=behind.records,
                    lag_s=behind.seconds,
                    elapsed_s=time.monotonic() - started_s,
                    where=_where(addresses),
                )
                live.update(draw(view))
                over_for_s = filming.over_for_s()
                if over_for_s and (_has_ended(view, filming.shed()) or over_for_s > DRAIN_DEADLINE_S):
                    return view, watcher
                time.sleep(_LOOK_EVERY_S)

    def _prove(self, addresses: StackAddresses, engine: Engine, watcher: Watcher) -> bool:
        """Prove the equation for the demo's cameras; the declarations arrive a moment after the frames.

        Both for this run and for all that the ledger remembers of cameras of these names.
        """
        end_s = time.monotonic() + DRAIN_DEADLINE_S
        with (
            closing(KafkaTopicReader(addresses.kafka_bootstrap)) as frames,
            self._screen.step("ledger proved") as notes,
        ):
            while True:
                run, ever = watcher.balances(), prove(engine, frames)
                if all_balanced(run) and all(camera in ever and ever[camera].is_balanced for camera in run):
                    notes.append("captured = judged + quarantined + shed")
                    return True
                if time.monotonic() > end_s:
                    notes.append("it does not balance")
                    return False
                time.sleep(_LOOK_EVERY_S)

    def _report(
        self,
        plan: DemoPlan,
        fitted: FittedModel,
        watcher: Watcher,
        balances: Mapping[str, CameraBalance],
        *,
        is_proved: bool,
    ) -> dict[str, Any]:
        status = stack.status(self._settings)
        report = report_of(
            balances=balances,
            is_balanced=is_proved,
            latency=watcher.latency(),
            verdicts=watcher.verdicts(),
            labels=plan.labels,
            manifest=fitted.manifest,
            fit_s=self._times.seconds["fit"],
            file_bytes=(fitted.folder / MODEL_FILE).stat().st_size,
            parts={
                part.name: {"version": part.version, "rss_mb": part.rss_mb, "start_s": part.start_s}
                for part in status
            },
            elapsed_s=self._times.seconds,
        )
        if self._options.report is not None:
            self._options.report.parent.mkdir(parents=True, exist_ok=True)
            self._options.report.write_text(json.dumps(report, indent=1))
        return report

    def _summary(self, report: Mapping[str, Any], fitted: FittedModel) -> dict[str, str]:
        """Return the closing lines, by name."""
        verdicts = report["inspections"]
        latency, model = report["latency_ms"], report["model"]
        called = [v for v in verdicts if v["is_anomalous"]]
        right = [v for v in called if v["label"] == "anomaly"]
        bad = [v for v in verdicts if v["label"] == "anomaly"]
        lines = {"verdicts": f"{len(verdicts)}, {len(called)} of them anomalous"}
        if bad:
            lines["against the labels"] = (
                f"{len(right)} of {len(bad)} anomalies found, {len(called) - len(right)} false alarms, "
                f"image AUROC {model['image_auroc']:.3f}"
            )
        if verdicts:
            lines["capture → stored verdict"] = (
                f"p50 {latency['p50']:.0f} ms, p95 {latency['p95']:.0f} ms, p99 {latency['p99']:.0f} ms"
            )
        lines["memory of the stack"] = f"{sum(p['rss_mb'] for p in report['parts'].values()) / 1000:.1f} GB"
        lines["model card"] = str(fitted.folder / "card.html")
        if self._options.report is not None:
            lines["report"] = str(self._options.report)
        if self._options.keep:
            lines["still running"] = "loupe status, loupe events --follow, loupe ledger; loupe down stops it"
        return lines


def _has_ended(view: LiveView, shed: int) -> bool:
    """Tell whether as many frames have an end as were captured."""
    ended = sum(seen.judged + seen.quarantined for seen in view.cameras.values()) + shed
    return ended >= sum(view.captured.values())


def _where(addresses: StackAddresses) -> dict[str, str]:
    return {
        "Kafka": addresses.kafka_bootstrap,
        "metrics": addresses.metrics_url,
        "Ray": addresses.ray_dashboard_url,
        "database": addresses.database_url.removeprefix("sqlite:///"),
    }
