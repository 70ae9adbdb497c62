"""What reviewers corrected goes into the newest version's memory, in seconds instead of a fit (arrow 6).

Works on the folder of the version that serves: false alarms become normal patches, missed defects
examples of defects (`reviewed_memory`). Threshold and promise stay; what cannot be mended this way is
told, and needs a whole fit. The result is a version like any other and goes through promotion.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray

from services.adapters.clock import Clock
from services.adapters.object_store.store import DATASETS_BUCKET, ObjectStore
from services.domain.errors import Rejected
from services.domain.label import Origin, Split, Verdict
from services.domain.model_version import Calibration, Manifest, TrainingRequest, Variant
from services.domain.promotion import PROMISE_CHANCE, upper_binomial_tail
from services.trainer.dataset_versions import document_of, snapshot_of
from services.trainer.datasets import DatasetEntry, Datasets
from services.trainer.model_folder import CARD_FILE, write_folder
from services.trainer.registry import Registry, new_version
from services.trainer.reviewed_memory import MemoryGraph, defects_of, joined
from services.vision.decode import decode
from services.vision.golden import Golden, read_golden, variant_golden_file
from services.vision.masks import marked_pixels, on_grid, size_of
from services.vision.runtime import GraphSession
from services.vision.scoring import judge
from services.vision.variants import FP32, fp32_of
from services.vision.verdict import input_size_px

logger = logging.getLogger(__name__)

# Normal photos that must not be rejected for it; they take half a second to judge.
_MAX_NORMALS = 48
# The latest reviews, which are judged before and after; the replay has older ones. 75 MB at 224 px.
_MAX_REVIEWED = 500
_USUAL_PX = 224**2
# Corrections of one update; more say that the model is wrong, not a few of its verdicts.
_MAX_CORRECTED = 32
# Of the level at which regions are cut: what lies below is no part of an alarm.
_ALARM_RATIO = 0.5
# Examples that one missed photo gives: a defect is some neighbouring cells, and one is enough to find it.
_DEFECTS_A_PHOTO = 8
_GOLDEN_PARENT, _GOLDEN_CORRECTED = 8, 4
# Share of verdicts that a faster precision has to have in common with fp32; as when it was made.
_MIN_AGREEMENT_RATIO = 0.99
_THREADS = 2


@dataclass(frozen=True, slots=True, eq=False)
class _Photo:
    """A labelled photo at the size of the model's input: (S, S, 3) uint8 RGB."""

    entry: DatasetEntry
    pixels: NDArray[np.uint8]

    @property
    def is_anomaly(self) -> bool:
        return self.entry.truth is Verdict.ANOMALY


@dataclass(frozen=True, slots=True)
class _Version:
    """The version to be updated, on this machine."""

    folder: Path
    manifest: Manifest

    @property
    def needs_fit(self) -> str:
        return f"A whole fit is needed: loupe train {self.manifest.project}"


class QuickUpdate:
    """Makes a new version out of the one that serves and what reviewers said of its verdicts."""

    def __init__(self, registry: Registry, datasets: Datasets, store: ObjectStore, clock: Clock) -> None:
        """Use the registry's versions, the datasets' reviews, and `store` for what an update saw."""
        self._registry = registry
        self._datasets = datasets
        self._store = store
        self._clock = clock

    def run(self, request: TrainingRequest, folder: Path) -> Path:
        """Return the new model folder, made below `folder`; give it to `Promotion.consider`.

        Raises:
            UnknownProject: there is no version to update.
            Rejected: nothing was corrected, or a whole fit is needed; the sentence says why.
            RetryLater: a neighbour is away.
        """
        started_monotonic_s = time.monotonic()
        announcement = self._registry.latest(request.project)
        place = folder / "parent"
        parent = _Version(place, self._registry.fetch(announcement, place))
        labelled = snapshot_of(self._datasets.all_entries(request.project)).entries
        # Never what is set aside for testing: that is for the replay.
        entries = [one for one in labelled if one.split is not Split.TEST]
        reviews = [one for one in entries if one.origin is Origin.REVIEW]
        reviews.sort(key=lambda one: one.labelled_at, reverse=True)
        reviewed = self._photos(reviews[: most_photos(_MAX_REVIEWED, parent.manifest)], parent.manifest)
        normals = self._normals(entries, parent.manifest)
        work = _Work(parent, reviewed, normals)
        wrong = work.wrong()
        if not wrong:
            _refuse_unneeded(parent.manifest, reviewed)
        work.accept([one for one in wrong if not one.is_anomaly])
        work.remember([(one, self._mask(one, work.memory.grid)) for one in wrong if one.is_anomaly])
        left = work.check(wrong)
        corrected = [one for one in wrong if one not in left]
        saw = self._store.put_image(DATASETS_BUCKET, document_of([one.entry for one in corrected]))
        manifest = _manifest_of(parent.manifest, corrected, left, saw.sha256, self._clock)
        return work.write(folder / "models", manifest, corrected, started_monotonic_s)

    def _photos(self, entries: Sequence[DatasetEntry], manifest: Manifest) -> list[_Photo]:
        """Return entries with their pixels; those that cannot be read are left out."""
        photos = []
        for entry in entries:
            try:
                pixels = decode(self._datasets.image(entry), input_size_px(manifest)).pixels
            except Rejected as error:
                logger.warning("entry %s is left out: %s", entry.entry_id, error.message)
            else:
                photos.append(_Photo(entry, pixels))
        return photos

    def _normals(self, entries: Sequence[DatasetEntry], manifest: Manifest) -> list[_Photo]:
        normal = (one for one in entries if one.truth is Verdict.NORMAL and one.origin is not Origin.REVIEW)
        return self._photos(list(islice(normal, most_photos(_MAX_NORMALS, manifest))), manifest)

    def _mask(self, photo: _Photo, grid: int) -> NDArray[np.bool_] | None:
        """Return (grid * grid,): the cells that a person marked; None where nobody drew."""
        marked = np.zeros(grid * grid, bool)
        for mask in photo.entry.masks:
            drawn = self._store.get_image(mask.image)
            marked |= on_grid(marked_pixels(drawn, size_of(drawn)), grid).ravel()
        return marked if marked.any() else None


class _Work:
    """One update under way."""

    def __init__(self, parent: _Version, reviewed: Sequence[_Photo], normals: Sequence[_Photo]) -> None:
        self._parent, self._reviewed, self._normals = parent, reviewed, normals
        self._calibration = parent.manifest.calibration
        model = onnx.load(parent.folder / fp32_of(parent.manifest).file)
        try:
            self.memory = MemoryGraph(model, self._calibration, _THREADS)
        except ValueError as error:
            message = (
                f"Version {parent.manifest.version} ({parent.manifest.family}) has no memory that could be "
                f"corrected. {parent.needs_fit}"
            )
            raise Rejected(message, version=parent.manifest.version) from error
        self._before = GraphSession(model.SerializeToString(), threads=_THREADS)

    def wrong(self) -> list[_Photo]:
        """Return the reviewed photos that the parent judges wrong.

        Raises:
            Rejected: so many that this is no matter of a few patches.
        """
        if not self._reviewed:
            return []
        verdicts = self._verdicts(self._reviewed)
        wrong = [one for one, is_anomalous in zip(self._reviewed, verdicts, strict=True)
                 if is_anomalous is not one.is_anomaly]  # fmt: skip
        if len(wrong) > _MAX_CORRECTED:
            message = (
                f"Version {self._parent.manifest.version} judges {len(wrong)} of {len(self._reviewed)} "
                f"reviewed images wrong; an update mends {_MAX_CORRECTED}. {self._parent.needs_fit}"
            )
            raise Rejected(message, wrong=len(wrong))
        return wrong

    def accept(self, photos: Sequence[_Photo]) -> None:
        """Let the memory know the patches of false alarms."""
        if not photos:
            return
        seen = self.memory.look(_stacked(photos))
        alarms = [_alarming(one, self._calibration, self.memory.grid) for one in seen.outputs.maps]
        self.memory.accept(seen, np.any(alarms, axis=0))
        known = self.memory.defects
        if len(known.radii):  # an example that rejects a good part is none
            finest = seen.patches[0].reshape(-1, seen.patches[0].shape[2])
            self.memory.set_defects(known.chosen(~known.hits(finest)))

    def remember(self, photos: Sequence[tuple[_Photo, NDArray[np.bool_] | None]]) -> None:
        """Give the memory examples of missed defects."""
        if not photos:
            return
        golden = read_golden(self._parent.folder)
        is_normal = golden.outputs.scores < self._calibration.threshold
        good = [*golden.inputs[is_normal], *(one.pixels for one in self._normals)]
        good += [one.pixels for one in self._reviewed if not one.is_anomaly]
        normal_patches = list(self.memory.look(np.stack(good)).patches[0]) if good else []
        bank = self.memory.normals(self.memory.banks[0])
        defects = self.memory.defects
        seen = self.memory.look(np.stack([one.pixels for one, _ in photos]))
        for (_, marked), patches, anomaly_map in zip(photos, seen.patches[0], seen.outputs.maps, strict=True):
            cells = _likeliest(anomaly_map, self.memory.grid) if marked is None else marked
            found = defects_of(patches[cells], bank, normal_patches, _DEFECTS_A_PHOTO)
            defects = joined(defects, found)
        self.memory.set_defects(defects)

    def check(self, wrong: Sequence[_Photo]) -> list[_Photo]:
        """Return the photos that are still judged wrong.

        Raises:
            Rejected: all of them, or others are judged wrong instead.
        """
        after = GraphSession(self.memory.serialised(), threads=_THREADS)
        verdicts = dict(zip((one.entry.entry_id for one in self._reviewed),
                            self._verdicts(self._reviewed, after), strict=True))  # fmt: skip
        still = [one for one in self._reviewed if verdicts[one.entry.entry_id] is not one.is_anomaly]
        newly = [one for one in still if one not in wrong]
        if newly:
            self._refuse(f"it would get {len(newly)} images wrong that reviewers corrected before")
        if len(still) == len(wrong):
            what = "its other detectors" if "+" in self._parent.manifest.family else "its memory"
            self._refuse(f"{what} would judge the reviewed images as before")
        rejected = sum(self._verdicts(self._normals, after))
        promise = self._calibration.max_false_reject_ratio
        is_chance = upper_binomial_tail(rejected, len(self._normals), promise) >= PROMISE_CHANCE
        before = rejected if is_chance else sum(self._verdicts(self._normals))
        if rejected > before:
            self._refuse(
                f"it would reject {rejected} of {len(self._normals)} normal images instead of {before}"
            )
        return still

    def write(
        self, out_dir: Path, manifest: Manifest, corrected: Sequence[_Photo], started_monotonic_s: float
    ) -> Path:
        """Write the new folder: graph, faster precisions that still agree, golden photos, card."""
        graph = self.memory.serialised()
        session = GraphSession(graph, threads=_THREADS)
        inputs = read_golden(self._parent.folder).inputs[:_GOLDEN_PARENT]
        inputs = np.concatenate([inputs, _stacked(corrected[:_GOLDEN_CORRECTED])])
        golden = Golden(inputs, session.infer(inputs))
        variants, files = self._variants(session, golden)
        names = {one.name for one in variants}
        made_s = round(time.monotonic() - started_monotonic_s, 3)
        complete = replace(
            manifest,
            variants=variants,
            serving=manifest.serving if manifest.serving in names else FP32,
            metrics={"fit_s": made_s},
        )
        card = _card_with_note((self._parent.folder / CARD_FILE).read_text(), complete)
        folder, _ = write_folder(out_dir, complete, model=graph, golden=golden, card=card, variants=files)
        logger.info("%s updated to %s in %.1f s", complete.parent, complete.version, made_s)
        return folder

    def _variants(self, fp32: GraphSession, golden: Golden) -> tuple[tuple[Variant, ...], dict[str, bytes]]:
        """Return the precisions that judge like fp32 with the new memory, and their files."""
        kept = [fp32_of(self._parent.manifest)]
        files: dict[str, bytes] = {}
        photos = [*self._reviewed, *self._normals]
        wanted = self._verdicts(photos, fp32)
        for variant in self._parent.manifest.variants:
            if variant.file == kept[0].file:
                continue
            try:
                graph = MemoryGraph(
                    onnx.load(self._parent.folder / variant.file), self._calibration, _THREADS
                )
            except ValueError:
                continue
            self.memory.copy_memory_to(graph)
            serialised = graph.serialised()
            session = GraphSession(serialised, threads=_THREADS)
            equal = np.mean(np.equal(wanted, self._verdicts(photos, session)))
            if equal < _MIN_AGREEMENT_RATIO:
                logger.warning("%s is left out: %.1f %% of its verdicts agree", variant.name, 100 * equal)
                continue
            kept.append(replace(variant, agreement_ratio=float(equal), auroc_loss=0.0))
            files |= {
                variant.file: serialised,
                variant.golden: variant_golden_file(session.infer(golden.inputs)),
            }
        return tuple(kept), files

    def _verdicts(self, photos: Sequence[_Photo], session: GraphSession | None = None) -> list[bool]:
        """Return which photos are anomalous, by the new graph if given, else by the parent's."""
        if not photos:
            return []
        session = session or self._before
        verdicts: list[bool] = []
        for one in photos:
            verdicts += [
                judge(each, self._parent.manifest).is_anomalous for each in session.infer(one.pixels[None])
            ]
        return verdicts

    def _refuse(self, why: str) -> NoReturn:
        version = self._parent.manifest.version
        message = f"A quick update of {version} does not do: {why}. {self._parent.needs_fit}"
        raise Rejected(message, version=version)


def most_photos(at_usual_size: int, manifest: Manifest) -> int:
    """Return how many photos may be kept at a time: of larger inputs, as tiles have, fewer."""
    width_px, height_px = input_size_px(manifest)
    fewer = at_usual_size * _USUAL_PX // (width_px * height_px)
    return min(at_usual_size, max(fewer, _MAX_CORRECTED))


def _refuse_unneeded(manifest: Manifest, reviewed: Sequence[_Photo]) -> NoReturn:
    if not reviewed:
        message = (
            f"No verdict on an image of {manifest.project} was reviewed, so there is nothing to update. "
            f"A whole fit takes all labels: loupe train {manifest.project}"
        )
    else:
        message = (
            f"Version {manifest.version} judges all {len(reviewed)} reviewed images right; there is nothing "
            "to update."
        )
    raise Rejected(message, project=manifest.project, reviewed=len(reviewed))


def _manifest_of(
    parent: Manifest, corrected: Sequence[_Photo], left: Sequence[_Photo], digest: str, clock: Clock
) -> Manifest:
    """Return the new version's manifest, without files and what is only known once it is written."""
    misses = sum(one.is_anomaly for one in corrected)
    note = (
        f"A quick update of {parent.version}: {len(corrected) - misses} false alarms and {misses} misses "
        "went into its memory; its figures were not measured again."
    )
    notes = [note]
    if left:
        notes.append(
            f"{len(left)} reviewed images are still judged wrong and need a whole fit: "
            f"{', '.join(str(one.entry.entry_id) for one in left[:3])}."
        )
    now = clock.now()
    return replace(
        parent,
        version=new_version(now, secrets.token_hex(2)),
        created_at=now,
        parent=parent.version,
        data_digest=digest,
        files={},
        intervals={},
        warnings=(*(one for one in parent.warnings if not one.startswith("A quick update of")), *notes),
    )


def _card_with_note(card: str, manifest: Manifest) -> str:
    """Return the parent's card under a sentence that says whose it is."""
    note = " ".join(one for one in manifest.warnings if one.startswith("A quick update of"))
    told = (
        f"<p><strong>Version {escape(manifest.version)}.</strong> {escape(note)} What follows is the card of "
    )
    told += f"{escape(manifest.parent)}.</p>"
    body = re.search(r"<body[^>]*>", card)
    at = body.end() if body else 0
    return card[:at] + told + card[at:]


def _alarming(anomaly_map: NDArray[np.float32], calibration: Calibration, grid: int) -> NDArray[np.bool_]:
    """Return (grid * grid,): the cells of a false alarm that stand out, and those beside them."""
    stands_out = _on_cells(anomaly_map, grid) >= _ALARM_RATIO * calibration.map_threshold
    wide = np.pad(stands_out, 1)
    shifted = [wide[down : down + grid, right : right + grid] for down in range(3) for right in range(3)]
    return np.asarray(np.any(shifted, axis=0).ravel(), np.bool_)


def _likeliest(anomaly_map: NDArray[np.float32], grid: int) -> NDArray[np.bool_]:
    """Return (grid * grid,): the cells where an unmarked defect most likely is, those highest in the map."""
    cells = _on_cells(anomaly_map, grid).ravel()
    return np.asarray(cells >= np.sort(cells)[-_DEFECTS_A_PHOTO], np.bool_)


def _on_cells(anomaly_map: NDArray[np.float32], grid: int) -> NDArray[np.float32]:
    """Return (grid, grid): the highest value of a finer map in each cell."""
    block = anomaly_map.shape[0] // grid
    return np.asarray(anomaly_map.reshape(grid, block, grid, block).max(axis=(1, 3)), np.float32)


def _stacked(photos: Sequence[_Photo]) -> NDArray[np.uint8]:
    return np.stack([one.pixels for one in photos])
