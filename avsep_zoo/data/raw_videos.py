"""The videos of a data set that is not prepared yet, found by their names."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from avsep_zoo.data.reader import PREPARED

__all__ = ["SOUND_SUFFIXES", "VIDEO_SUFFIXES", "RawVideos", "walk"]

VIDEO_SUFFIXES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".webm"})
SOUND_SUFFIXES = frozenset({".aac", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav"})
_PREPARED = {"audio", "frames", "detection_results", "motion_features"}


class RawVideos:
    """Videos below ``root/videos``, or anywhere in a folder that has neither that nor ``audio``.

    The folder is listed once, at the first question, by :func:`walk`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        base = self.root / "videos"
        if not base.is_dir():
            if (self.root / "audio").is_dir():
                return {}
            base = self.root
        found: dict[str, list[Path]] = {}
        for folder, files in walk(base, _PREPARED):
            for name in files:
                path = folder / name
                if path.suffix.lower() in VIDEO_SUFFIXES:
                    found.setdefault(path.stem, []).append(path)
        return found

    def find(self, stem: str, folder: str = "") -> Path | None:
        """Return the video called ``stem``; of several the one in a folder called ``folder``, or the first."""
        paths = self._by_stem.get(stem, [])
        return next((path for path in paths if path.parent.name == folder), paths[0] if paths else None)


def walk(base: Path, without: Collection[str] = ()) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders from ``base`` on, with the names of their files, in alphabetical order.

    Hidden ones, prepared copies and those that are called as in ``without`` are left out. Links are followed in
    ``base`` alone, where classes that lie on another disk are linked, so that they cannot lead in a circle.
    """
    for folder, inner, files in os.walk(base, followlinks=True):
        here = Path(folder)
        inner[:] = sorted(
            name
            for name in inner
            if name not in without
            and not name.startswith(".")
            and not (here / name / PREPARED).is_file()
            and (here == base or not (here / name).is_symlink())
        )
        yield here, sorted(files)
