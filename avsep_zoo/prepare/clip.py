"""One clip: everything that is made of it, or the reason why nothing is."""

from __future__ import annotations

import errno
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av

from avsep_zoo.data.clip import Clip
from avsep_zoo.errors import DataError, MediaError
from avsep_zoo.media import VideoSource
from avsep_zoo.prepare.pictures import frame_times, write_detections, write_frames, write_motion
from avsep_zoo.prepare.settings import Settings, Tools, load_tools
from avsep_zoo.prepare.sound import write_sound
from avsep_zoo.replaced import part_name, remove, replaced

__all__ = ["Broken", "Job", "Record", "carries_detections", "clean", "is_whole", "run_job"]

# Errors of the file system that come from the names of one clip; any other is one of the disk, and ends the run.
_BAD_NAMES = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}
)


@dataclass(frozen=True)
class Job:
    """A clip to make.

    Args:
        key: path of its sound below the prepared folder.
        clip: as it is.
        target: as it shall be.
        root: folder of the raw data, which messages leave out.
    """

    key: str
    clip: Clip
    target: Clip
    root: Path

    @property
    def outputs(self) -> dict[str, Path]:
        """What may be made: kind -> path."""
        target = self.target
        paths = {"audio": target.audio, "frames": target.frames}
        paths |= {"detections": target.detections, "motion": target.motion}
        return {kind: path for kind, path in paths.items() if path is not None}


@dataclass(frozen=True)
class Record:
    """A clip that is made: number of samples and frames, kinds of its outputs, and what is doubtful about it."""

    key: str
    samples: int
    frames: int
    made: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """The record as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Broken:
    """A clip of which nothing was made, and why."""

    key: str
    why: str


def is_whole(job: Job, record: Record) -> bool:
    """Whether everything that ``record`` stands for is there."""
    return all(kind in job.outputs and job.outputs[kind].exists() for kind in ("audio", *record.made))


def carries_detections(clip: Clip) -> bool:
    """Whether the data set comes with detections, in a folder per clip; these are copied."""
    return clip.detections is not None and clip.detections.is_dir()


def clean(job: Job, *, finished: bool = False) -> None:
    """Remove what a killed run left of a clip, with ``finished`` also its finished files."""
    for path in job.outputs.values():
        try:
            remove(part_name(path))
            if finished:
                remove(path)
        except OSError as error:
            if error.errno not in _BAD_NAMES:
                raise


def run_job(job: Job, settings: Settings, device: str) -> Record | Broken:
    """Make every file of a clip, or none.

    Raises:
        AvsepError: the detector or the motion network cannot be used.
        DataError: the disk cannot be written.
    """
    tools = load_tools(settings, device)
    clean(job, finished=True)
    try:
        return _make(job, settings, tools)
    except (MediaError, av.FFmpegError) as error:
        why = str(error)
    except OSError as error:
        if error.errno not in _BAD_NAMES:
            raise DataError(f"Clip {job.clip.id} cannot be written ({error}); finished clips are kept.") from error
        why = f"Its name cannot be used for a file here ({error.strerror})."
    clean(job, finished=True)
    return Broken(job.key, why.replace(f"{job.root}/", ""))


def _make(job: Job, settings: Settings, tools: Tools) -> Record:
    clip, outputs = job.clip, job.outputs
    source = clip.audio if clip.audio.is_file() or clip.video is None else clip.video
    samples, notes = write_sound(source, outputs["audio"], rate=settings.rate, start=clip.start, duration=clip.duration)
    seconds = samples / settings.rate
    made = ["audio"]
    if clip.duration is not None and seconds < clip.duration - 0.5:
        notes.append(f"{source} has {seconds:.2f} s of the {clip.duration:g} s from {clip.start:g} s on.")
    if carries_detections(clip):
        assert clip.detections is not None
        with replaced(outputs["detections"]) as part:
            shutil.copytree(clip.detections, part)
        made.append("detections")
    count = 0
    if "frames" in outputs and clip.video is not None:
        times = frame_times(seconds, settings.fps)
        count = len(times)
        with VideoSource(clip.video) as video:
            write_frames(video, outputs["frames"], [clip.start + time for time in times])
            made.append("frames")
            if tools.motion is not None and "motion" in outputs:
                write_motion(video, outputs["motion"], tools.motion, start=clip.start, seconds=seconds)
                made.append("motion")
        if tools.detector is not None and "detections" in outputs:
            write_detections(outputs["frames"], count, outputs["detections"], tools.detector)
            made.append("detections")
    return Record(job.key, samples, count, tuple(made), tuple(note.replace(f"{job.root}/", "") for note in notes))
