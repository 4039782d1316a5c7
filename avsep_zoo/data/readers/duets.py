"""Synthetic-Duet of IAL-CMS: clips of 10 s of MUSIC solos, mixed by a fixed recipe.

A row of ``train``, ``val``, ``test`` or ``seen_heard_test`` is ``audio,frames folder,detections`` such as
``data/audio/cello/AbC_7.wav,data/frames/cello/AbC_7,data/detect/cello/AbC_7.npy``; the instrument is the folder of the
sound. The data folder is the one that holds ``data``, or ``data`` itself. Frames are 8 per second, ``%06d.png`` as
published. Detections are of the classes :data:`DETECTED`, unless ``prepare.json`` names others.

Test mixtures, ``test_2mix`` and ``test_3mix``, are :func:`published_mixtures`: the published ones where no row of the
list is missing; a copy that is short of clips holds the published ones that are left, as ``test_2mix.csv``.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeVar

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.find_lists import IndexList, Rows, first_rows
from avsep_zoo.data.index_file import inner_path
from avsep_zoo.data.index_reader import IndexReader
from avsep_zoo.errors import DataError

__all__ = ["DETECTED", "DuetsReader", "published_mixtures"]

DETECTED = (
    "banjo", "cello", "drum", "acoustic_guitar", "harp", "harmonica", "clarinet", "xylophone", "saxophone", "trombone",
    "trumpet", "violin", "flute", "accordion", "tuba",
)  # fmt: skip
"""Classes of the published detections, from 1, by the instruments of the data set that are found as them: the detector
itself calls four of them guitar, oboe, piano and horn. It finds an erhu as anything."""

Row = TypeVar("Row")


def published_mixtures(
    instruments: Mapping[str, Sequence[Row]], sources: int, *, times: int = 10, seed: int = 0
) -> list[list[Row]]:
    """Test mixtures of IAL-CMS: a random clip of each instrument, for every combination of them, then all shuffled.

    Source: the official code of Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024.

    Args:
        instruments: name -> its clips, in the order of the list.
        sources: clips per mixture, of different instruments in alphabetical order.
        times: mixtures of each combination.
        seed: of Python's generator.
    """
    generator = random.Random(seed)
    mixtures = [
        [generator.choice(instruments[name]) for name in names]
        for names in itertools.combinations(sorted(instruments), sources)
        for _ in range(times)
    ]
    generator.shuffle(mixtures)
    return mixtures


class DuetsReader(IndexReader):
    """Synthetic-Duet."""

    frame_rate = 8.0

    @classmethod
    def matches(cls, root: Path) -> bool:
        return any(len(row) == 3 and row[2].endswith(".npy") for row in first_rows(root))

    def _find(self) -> dict[str, IndexList]:
        lists = super()._find()
        for split in ("test", "seen_heard_test"):
            for sources in (2, 3):
                name = f"{split}_{sources}mix"
                if split in lists and name not in lists:
                    file = lists[split].file.with_name(f"{name}.csv")
                    lists[name] = IndexList(file, partial(self._recipe, split, sources))
        return lists

    def _recipe(self, split: str, sources: int) -> Rows:
        by_label: dict[str, list[str]] = {}
        for clip in self.clips(split):
            by_label.setdefault(clip.labels[0], []).append(self._cells[split][clip.id][0])
        mixtures = published_mixtures(by_label, sources)
        return [(f"mixture {n} of {split}", row) for n, row in enumerate(mixtures, 1)]

    def _path(self, cell: str) -> PurePosixPath:
        """A path of a row, from the data folder."""
        path = inner_path(cell)
        doubled = path.parts[0] == self.root.name and not (self.root / path.parts[0]).is_dir()
        return PurePosixPath(*path.parts[1:]) if doubled else path

    def _name(self, cell: str) -> str:
        return str(self._path(cell))

    def _clip(self, cells: list[str]) -> Clip:
        if len(cells) != 3:
            raise DataError(f"The row has {len(cells)} columns; give audio,frames,detections.")
        audio, frames, detections = (self._path(cell) for cell in cells)
        if len(audio.parts) < 2 or detections.suffix != ".npy":
            raise DataError(f"The row {audio},{detections} is not instrument/audio and detections (.npy).")
        label = audio.parent.name
        return Clip(
            id=f"{label}/{audio.stem}",
            audio=self.root / audio,
            labels=(label,),
            video=self.videos.find(audio.stem, label),
            frames=self.root / frames,
            frame_rate=self.frame_rate,
            detections=self.root / detections,
            detector_classes=self.detector_classes or DETECTED,
        )

    def _row(self, clip: Clip, cells: list[str]) -> list[str]:
        return [str(self._path(cell)) for cell in cells]

    def _pair(self, cells: list[str], clips: Sequence[Clip]) -> list[str]:
        return [str(self._path(cell)) for cell in cells]
