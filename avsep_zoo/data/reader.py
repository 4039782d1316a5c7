"""What a data set on disk looks like from inside: readers turn index files and folders into clips."""

from __future__ import annotations

import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.splits import pair_up
from avsep_zoo.errors import DataError
from avsep_zoo.registry import registry

__all__ = ["GENERATED", "PREPARED", "Protocol", "Reader", "Skipped", "open_data"]

PREPARED = "prepare.json"
"""Manifest of a folder that ``avsep prepare`` wrote."""

GENERATED = "synth.json"
"""Manifest of a folder that ``avsep synth`` wrote."""

Protocol = Literal["default", "paper"]
"""``paper`` repeats what a published loader does silently wrong; each use says what that is."""


@dataclass(frozen=True)
class Skipped:
    """Something of a data set that was left out: where it stands, and why, in words."""

    where: str
    why: str


class Reader(ABC):
    """A data set in its official layout.

    Args:
        root: folder of the data set.
        protocol: see :data:`Protocol`.
        frame_rate: frames per second of the stored frames; None is the data set's own.

    ``skipped`` collects the rows that were left out by the calls so far; ``detector_classes`` are the names of the
    classes that stored detections have numbers of, from 1, as far as a manifest tells them.
    """

    frame_rate: float = 1.0

    def __init__(self, root: Path, *, protocol: Protocol = "default", frame_rate: float | None = None) -> None:
        self.root, self.protocol = root, protocol
        self.frame_rate = type(self).frame_rate if frame_rate is None else frame_rate
        self.skipped: list[Skipped] = []
        self.detector_classes = _noted_classes(root)

    @classmethod
    @abstractmethod
    def matches(cls, root: Path) -> bool:
        """Whether the folder holds this data set; looks at names and the first rows of lists only."""

    @abstractmethod
    def splits(self) -> tuple[str, ...]:
        """Names of the lists of clips that are here."""

    @abstractmethod
    def clips(self, split: str) -> list[Clip]:
        """Clips of a list; a bad row is left out and noted in ``skipped``.

        Raises:
            DataError: there is no such list, or it has no usable row.
        """

    def mixture_lists(self) -> tuple[str, ...]:
        """Names of the lists of fixed test mixtures that are here."""
        return ()

    def mixtures(self, name: str) -> list[tuple[Clip, ...]]:
        """Clips of each mixture of a list.

        A list of clips is one, too: its clips are paired up, always in the same way, so that what is chosen by a
        score can be chosen on validation clips.

        Raises:
            DataError: there is no such list, or it has no usable row.
        """
        if name in self.splits():
            pairs = pair_up([clip for clip in self.clips(name) if len(clip.labels) < 2])
            if not pairs:
                raise DataError(f"The clips of {name!r} in {str(self.root)!r} cannot be paired; give two classes.")
            return list(pairs)
        lists = _names(list(dict.fromkeys((*self.mixture_lists(), *self.splits()))))
        raise DataError(f"{str(self.root)!r} has no list {name!r} to make mixtures of; it has {lists}.")

    def prepared(self, clip: Clip, target: Path) -> Clip:
        """Return the clip as it stands in a prepared copy of this data set in ``target``.

        Its paths say where the sound, frames, detections and motion features belong there; the copy has no
        videos, and its sound begins where the clip does. In the data set itself the sound may be missing as long
        as ``clip.video`` is there.
        """

        def moved(path: Path | None) -> Path | None:
            return None if path is None else target / path.relative_to(self.root)

        return replace(
            clip,
            audio=target / clip.audio.relative_to(self.root),
            video=None,
            frames=moved(clip.frames),
            detections=moved(clip.detections),
            motion=moved(clip.motion),
            start=0.0,
            duration=None,
        )

    def write_index(self, target: Path, split: str, clips: Sequence[Clip]) -> None:
        """Write the list ``split`` of a prepared copy in ``target``, with the lists of mixtures made of its clips.

        Args:
            target: folder of the copy.
            split: one of :meth:`splits`.
            clips: those of :meth:`clips` that are in the copy, with the frames counted there.

        Raises:
            DataError: this reader writes no lists.
        """
        raise DataError(f"{type(self).__name__} writes no lists; prepare the data set with another reader.")

    def skip(self, where: str, why: str) -> None:
        """Note something that is left out."""
        self.skipped.append(Skipped(where, why))


def open_data(
    root: Path, name: str | None = None, *, protocol: Protocol = "default", frame_rate: float | None = None
) -> Reader:
    """Open a data folder with a registered reader.

    Args:
        root: the folder.
        name: reader, e.g. ``music``; None is the first one the folder matches, a plain folder last.
        protocol: as :class:`Reader`.
        frame_rate: frames per second of the stored frames; None is what ``avsep prepare`` noted, or else the data
            set's own.

    Raises:
        CompositionError: there is no such reader.
        DataError: there is no such folder, or no reader knows it.
    """
    if not root.is_dir():
        raise DataError(f"The data folder {str(root)!r} does not exist; give the folder of a data set.")
    kind = registry().part("reader", name) if name else _matching(root)
    reader: Reader = kind(root, protocol=protocol, frame_rate=_noted_rate(root) if frame_rate is None else frame_rate)
    return reader


def _noted_rate(root: Path) -> float | None:
    """Frames per second according to the manifest of a prepared folder."""
    try:
        fps = json.loads((root / PREPARED).read_text(encoding="utf-8"))["settings"]["fps"]
        return float(fps) if 0 < fps < math.inf else None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None


def _noted_classes(root: Path) -> tuple[str, ...]:
    """Names of the detector's classes according to the manifest of a prepared folder, or of a generated one."""
    for file, keys in ((PREPARED, ("settings", "detector", "labels")), (GENERATED, ("classes",))):
        try:
            found = json.loads((root / file).read_text(encoding="utf-8"))
            for key in keys:
                found = found[key]
            if isinstance(found, list) and found and all(isinstance(name, str) for name in found):
                return tuple(found)
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
    return ()


def _matching(root: Path) -> type[Reader]:
    names = [entry.name for entry in registry().list("reader")]
    for name in sorted(names, key=lambda name: (name == "folder", name)):
        try:
            kind: type[Reader] = registry().part("reader", name)
            if kind.matches(root):
                return kind
        except Exception as error:
            if registry().get("reader", name).plugin == "core":
                raise
            why = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(".")
            warnings.warn(f"The reader {name!r} was left out, it cannot look at {str(root)!r} ({why}).", stacklevel=2)
    raise DataError(
        f"{str(root)!r} looks like none of the data sets {_names(names)}; "
        "name one with --dataset to see what is missing."
    )


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
