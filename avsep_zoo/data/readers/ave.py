"""AVE (Tian et al., 2018), 28 classes, in the two forms that lists for separation are published in.

- iQuery: ``trainave``, ``testave``, ``testsepave`` in the columns of MUSIC, ``/Truck/AbC.wav,/Truck/AbC.mp4,250``,
  frames at 25 per second.
- DAVIS: ``AbC.wav,AbC.mp4,12,"Race car, auto racing"``: the files stand in ``audio`` and ``frames`` themselves, the
  class is the last column, frames are 1 per second. Its mixtures name ``/Race_car/AbC.wav``; what counts is the
  file name. A recording that is listed with two classes counts with the first, as published.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.find_lists import find_lists, first_rows
from avsep_zoo.data.index_file import inner_path, is_text
from avsep_zoo.data.index_reader import IndexReader, counted, listed_count, stored_clip
from avsep_zoo.data.reader import Protocol
from avsep_zoo.errors import DataError

__all__ = ["AveReader"]

_NAMES = re.compile(r"(train|val|test|testsep)ave\.csv")


class AveReader(IndexReader):
    """AVE; ``flat`` tells the form of DAVIS."""

    endings = ("ave",)

    def __init__(self, root: Path, *, protocol: Protocol = "default", frame_rate: float | None = None) -> None:
        self.flat = _is_flat(root)
        own = 1.0 if self.flat else 25.0
        super().__init__(root, protocol=protocol, frame_rate=own if frame_rate is None else frame_rate)

    @classmethod
    def matches(cls, root: Path) -> bool:
        return _is_flat(root) or any(_NAMES.fullmatch(entry.file.name) for entry in find_lists(root).values())

    def _look_up(self, cell: str, clips: dict[str, Clip]) -> Clip | None:
        name = self._name(cell)
        return clips.get(name) or (clips.get(PurePosixPath(name).name) if self.flat else None)

    def _clip(self, cells: list[str]) -> Clip:
        columns = 4 if self.flat else 2
        if len(cells) < columns:
            raise DataError(f"The row has fewer than {columns} columns; give audio,frames,count with the class last.")
        audio, frames = (inner_path(cell, parts=1 if self.flat else 2) for cell in cells[:2])
        label = cells[3].strip() if self.flat else audio.parts[0]
        if not label or not is_text(label):
            raise DataError(f"The class is {label!r}; give its name in the fourth column.")
        clip = Clip(id=str(audio.with_suffix("")), audio=Path(audio), labels=(label,), frame_count=listed_count(cells))
        return stored_clip(self, audio, frames, clip)

    def _row(self, clip: Clip, cells: list[str]) -> list[str]:
        return counted(clip, cells)


def _is_flat(root: Path) -> bool:
    rows = [row for row in first_rows(root, AveReader.endings) if len(row) == 4 and row[2].isdigit()]
    return any(not any("/" in cell.strip("/") for cell in row[:2]) for row in rows)
