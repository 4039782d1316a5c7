"""A whole data set: what is listed, what of it can be made, the lists of the prepared copy, and the manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.reader import PREPARED, Reader, open_data
from avsep_zoo.errors import DataError
from avsep_zoo.prepare.clip import Broken, Job, Record, carries_detections, clean, is_whole, run_job
from avsep_zoo.prepare.manifest import Journal, claimed, ids_sha256, versions, write_manifest
from avsep_zoo.prepare.pool import run_all
from avsep_zoo.prepare.settings import Settings, build_tools, load_tools, named, usual_device

__all__ = ["prepare_dataset"]

_PACKAGES = ("av", "numpy", "pillow", "soundfile", "soxr")
_TOOL_PACKAGES = ("torch", "torchvision", "transformers")

Progress = Callable[[int, int], None]


def prepare_dataset(
    reader: Reader,
    out: Path,
    settings: Settings,
    *,
    workers: int = 1,
    device: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Make a prepared copy of a data set of raw videos and return its manifest, ``out/prepare.json``.

    Of every clip that is listed: mono sound as 16-bit WAV, frames as JPEG (frame n shows the time
    (n - 0.5) / fps), detections and motion features, where the reader looks for them; then the lists, restricted
    to what was made. Finished clips of an earlier run with the same settings are kept; the files do not depend on
    ``workers`` (processes; a script with more than one needs the usual ``if __name__ == "__main__"``).

    Args:
        reader: the raw data; its ``frame_rate`` is that of the settings.
        out: folder to write: new, empty, or left by an earlier run.
        device: of detector and motion network, as torch names it; None is a GPU where there is one.
        progress: is called with (done, total).

    Raises:
        DataError: no clip can be made, the folder cannot be used, or holds data of other settings.
        WeightsError: the weights of the detector or the motion network cannot be used.
    """
    if workers < 1:
        raise DataError(f"workers is {workers}; use 1 or more.")
    if out.resolve() == reader.root.resolve() or out.resolve() in reader.root.resolve().parents:
        raise DataError(f"{out} holds the raw data; name another folder.")
    listed = _listed(reader)
    jobs, refused = _jobs(reader, listed, out)
    _check_use(settings, list(jobs.values()))
    device = device or usual_device(settings)
    tools = load_tools(settings, device) if workers == 1 else build_tools(settings, "cpu")
    settings = named(settings, tools)
    del tools  # several processes have their own
    packages = _PACKAGES + (_TOOL_PACKAGES if settings.detector or settings.motion else ())
    head = {"settings": settings.document(), "complete": False, "versions": versions(packages)}
    with claimed(out, settings.document()) as journal:
        whole = {key for key, record in journal.records.items() if key in jobs and is_whole(jobs[key], record)}
        journal.keep(key for key in jobs if key in whole)
        write_manifest(out, head)
        missing = [key for key, job in jobs.items() if key not in whole and not _has_source(job.clip)]
        for key in missing:
            clean(jobs[key], finished=True)
        pending = [job for key, job in jobs.items() if key not in whole and key not in set(missing)]
        broken = refused + _run(pending, settings, device, journal, workers, progress, len(whole))
        journal.keep(jobs)
        found = {
            "found": len(jobs) - len(missing),
            "prepared": len(journal.records),
            "sound_only": sum(record.frames == 0 for record in journal.records.values()),
            "missing": [jobs[key].clip.id for key in missing],
            "broken": [{"clip": clip, "why": why} for clip, why in broken],
            "doubtful": [
                {"clip": jobs[key].clip.id, "why": note} for key, r in journal.records.items() for note in r.notes
            ],
        }
        splits = _write_lists(reader, listed, out, journal.records)
        rows = [{"where": row.where, "why": row.why} for row in reader.skipped]
        copy = _read_copy(out, settings) if journal.records else {}
        write_manifest(out, head | {"complete": True, **found, "rows_left_out": rows, "splits": splits, **copy})
    if not journal.records:
        first = f", the first because {broken[0][1]}" if broken else ""
        raise DataError(
            f"None of the {len(jobs)} clips can be prepared: {len(missing)} have no file and {len(broken)} cannot be "
            f"used{first}"
        )
    return out / PREPARED


def _listed(reader: Reader) -> dict[str, list[Clip]]:
    """Clips of every list that has any."""
    listed: dict[str, list[Clip]] = {}
    for split in reader.splits():
        try:
            listed[split] = reader.clips(split)
        except DataError as error:
            reader.skip(split, str(error))
    if not listed:
        why = reader.skipped[-1].why if reader.skipped else "it has no list and no clip; check folder and --dataset."
        raise DataError(f"Nothing is listed in {str(reader.root)!r}: {why}")
    return listed


def _jobs(reader: Reader, listed: Mapping[str, list[Clip]], out: Path) -> tuple[dict[str, Job], list[tuple[str, str]]]:
    """Jobs by key, each once however often it is listed, and clips that would write over another's files."""
    jobs: dict[str, Job] = {}
    owners: dict[Path, str] = {}
    refused: dict[str, str] = {}
    for clip in (clip for clips in listed.values() for clip in clips):
        target = reader.prepared(clip, out)
        key = _key(target, out)
        if key in jobs:
            continue
        job = Job(key, clip, target, reader.root)
        paths = list(job.outputs.values())
        taken = [path for path in paths if path in owners]
        if taken or len(set(paths)) < len(paths):
            rival = owners[taken[0]] if taken else clip.id
            refused[clip.id] = f"Its files would be written over those of {rival}; give each clip its own names."
        elif any(".." in path.relative_to(out).parts for path in paths):
            refused[clip.id] = "Its files would lie outside the folder; rename it."
        else:
            owners |= dict.fromkeys(paths, clip.id)
            jobs[key] = job
    return jobs, list(refused.items())


def _check_use(settings: Settings, jobs: list[Job]) -> None:
    """Make sure that detector and motion network have something to look at in the data set."""
    seen = [job for job in jobs if "frames" in job.outputs]
    if settings.detector is not None and all(
        "detections" not in job.outputs or carries_detections(job.clip) for job in seen
    ):
        raise DataError(f"The data set {settings.dataset} has no place for detections in frames; leave --detector out.")
    if settings.motion is not None and all("motion" not in job.outputs for job in seen):
        raise DataError(f"The data set {settings.dataset} has no place for motion features; leave --motion out.")


def _key(target: Clip, out: Path) -> str:
    return target.audio.relative_to(out).as_posix()


def _has_source(clip: Clip) -> bool:
    return clip.audio.is_file() or (clip.video is not None and clip.video.is_file())


def _run(
    jobs: list[Job],
    settings: Settings,
    device: str,
    journal: Journal,
    workers: int,
    progress: Progress | None,
    before: int,
) -> list[tuple[str, str]]:
    """Make clips, note finished ones in the journal, and return the ids of the others with the reason."""
    if not jobs:
        return []
    workers = min(workers, len(jobs))
    work = partial(run_job, settings=settings, device=device)
    broken: dict[str, str] = {}
    total = before + len(jobs)
    if progress is not None:
        progress(before, total)
    for done, (job, result) in enumerate(run_all(work, jobs, workers), before + 1):
        if isinstance(result, Record):
            journal.add(result)
        else:
            clean(job, finished=True)
            why = result.why if isinstance(result, Broken) else "The process that read it died; is memory short?"
            broken[job.clip.id] = why
        if progress is not None:
            progress(done, total)
    return [(job.clip.id, broken[job.clip.id]) for job in jobs if job.clip.id in broken]


def _write_lists(
    reader: Reader, listed: Mapping[str, list[Clip]], out: Path, records: Mapping[str, Record]
) -> dict[str, Any]:
    """Write the lists of the copy; the size and hash of each as listed and as prepared."""
    splits = {}
    for split, clips in listed.items():
        made = []
        for clip in clips:
            target = reader.prepared(clip, out)
            record = records.get(_key(target, out))
            if record is not None:
                made.append(replace(target, frame_count=record.frames))
        reader.write_index(out, split, made)
        splits[split] = {
            "listed": len(clips),
            "listed_sha256": ids_sha256(clip.id for clip in clips),
            "prepared": len(made),
            "prepared_sha256": ids_sha256(clip.id for clip in made),
        }
    return splits


def _read_copy(out: Path, settings: Settings) -> dict[str, Any]:
    """What the reader of the copy says of its test mixtures."""
    name = None if settings.dataset == "folder" else settings.dataset
    reader = open_data(out, name, frame_rate=settings.fps)
    mixtures = {}
    for entry in reader.mixture_lists():
        try:
            pairs = ["\t".join(clip.id for clip in mixture) for mixture in reader.mixtures(entry)]
        except DataError:
            continue
        mixtures[entry] = {"mixtures": len(pairs), "sha256": ids_sha256(pairs)}
    return {"mixtures": mixtures}
