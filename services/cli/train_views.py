"""Trainings and policies as people read them, and as JSON (`loupe train`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from services.cli.layout import Column, Room, print_facts, print_list
from services.domain.model_version import JobState

if TYPE_CHECKING:
    from services.trainer.jobs import Job
    from services.trainer.policies import Policy

_STAGES = {
    "": "starting", "fetch": "fetching", "wait": "waiting", "read": "reading", "learn": "learning",
    "choose": "choosing", "calibrate": "calibrating", "write": "writing", "promote": "promoting",
}  # fmt: skip
_COLOURS = {
    JobState.DONE: "green", JobState.FAILED: "red", JobState.CANCELLED: "yellow", JobState.RUNNING: "cyan",
}  # fmt: skip


def job_as_data(job: Job) -> dict[str, Any]:
    """Return a training as JSON values."""
    times = {
        name: at.isoformat() if at else None
        for name, at in (
            ("requested_at", job.requested_at), ("told_at", job.told_at), ("ended_at", job.ended_at)
        )
    }  # fmt: skip
    return {**asdict(job), "state": job.state.value, **times}


def policy_as_data(policy: Policy) -> dict[str, Any]:
    """Return a policy as JSON values."""
    return {**asdict(policy), "changed_at": policy.changed_at.isoformat()}


def stage_text(job: Job) -> str:
    """Return what a training does, in a word."""
    return "waiting" if job.state is JobState.QUEUED else _STAGES.get(job.stage, job.stage)


def eta_text(job: Job, now: datetime) -> str:
    """Return when a running training will end, in words; empty while nobody knows."""
    if job.eta_s is None or job.told_at is None:
        return ""
    left_s = max(0.0, job.eta_s - (now - job.told_at).total_seconds())
    if left_s < 90:
        return f"{left_s:.0f} s left"
    return f"{left_s / 60:.0f} min left"


def print_jobs(console: Console, jobs: Sequence[Job], now: datetime) -> None:
    """Print trainings, a row each."""
    columns = (
        Column("training"),
        Column("state"),
        Column("asked"),
        Column("by", room=Room.BELOW),
        Column("", room=Room.BELOW),
    )
    rows = []
    for one in jobs:
        asked_at = one.requested_at.astimezone()
        asked = (
            f"{asked_at:%H:%M}" if asked_at.date() == now.astimezone().date() else f"{asked_at:%m-%d %H:%M}"
        )
        who = one.author if one.trigger == "request" else f"{one.author} ({one.trigger})".strip()
        rows.append(
            (one.training_id, Text(one.state, _COLOURS.get(one.state, "")), asked, who, _standing(one, now))
        )
    print_list(console, columns, rows)


def print_policies(console: Console, policies: Sequence[Policy]) -> None:
    """Print when projects train by themselves."""
    columns = (Column("project"), Column("trains"), Column("set by", room=Room.BELOW))
    rows = []
    for one in policies:
        times = []
        if one.after_labels is not None:
            times.append(f"after {one.after_labels} new or changed labels")
        if one.nightly_at is not None:
            times.append(f"at {one.nightly_at} UTC")
        rows.append((one.project, " and ".join(times), f"{one.changed_by} {one.changed_at:%Y-%m-%d}".strip()))
    print_list(console, columns, rows)


def print_outcome(console: Console, job: Job) -> None:
    """Print what came of one training."""
    facts: dict[str, str | Text] = {
        "training": job.training_id,
        "project": job.project,
        "state": Text(job.state, _COLOURS.get(job.state, "")),
    }
    if job.version:
        facts["version"] = job.version
    if job.message:
        facts["because" if job.state is JobState.FAILED else "says"] = job.message
    print_facts(console, facts)
    if job.version:
        console.print(f"Next: loupe models {job.project}")


def _standing(job: Job, now: datetime) -> str:
    if job.state is not JobState.RUNNING:
        return job.message
    return f"{stage_text(job)} {job.done_ratio:.0%} {eta_text(job, now)}".strip()
