"""VGGSound (Chen et al., 2020): recordings of 10 s whose class is a short text.

A row of ``train``, ``val`` or ``test`` is ``path,label``; the label may hold commas, quoted or not, and is the class.
Paths are below ``audio``; where they are written with folders up to one called ``audio``, those are dropped (published:
doubled). Rows of ``test_sep_2`` are the paths of a mixture of any number (published: everything after the first comma
is one path, which fails for three and more). Without such lists the official ``vggsound.csv`` is read:
``id,start,label,split``, with files ``<id>_<start as 6 digits>``.

``train_instruments`` and so on are the rows of 15 instruments. Papers that report on "VGGSound-15Instrument" do not
list theirs in a form that was at hand; these are the 15 that the usual detector of instruments knows.
"""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path, PurePosixPath

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.find_lists import IndexList, Rows, first_rows
from avsep_zoo.data.index_file import frame_count, inner_path, is_text, read_rows
from avsep_zoo.data.index_reader import IndexReader, stored_clip
from avsep_zoo.data.raw_videos import SOUND_SUFFIXES, VIDEO_SUFFIXES
from avsep_zoo.errors import DataError

__all__ = ["INSTRUMENTS", "VggSoundReader"]

INSTRUMENTS = (
    "playing accordion",
    "playing acoustic guitar",
    "playing banjo",
    "playing cello",
    "playing drum kit",
    "playing flute",
    "playing french horn",
    "playing harmonica",
    "playing harp",
    "playing oboe",
    "playing piano",
    "playing saxophone",
    "playing trombone",
    "playing trumpet",
    "playing violin, fiddle",
)
"""Classes of the 15-instrument lists."""

_OFFICIAL = "vggsound.csv"


class VggSoundReader(IndexReader):
    """VGGSound by text, and its lists of 15 instruments."""

    endings = ("vggsound",)

    @classmethod
    def matches(cls, root: Path) -> bool:
        media = SOUND_SUFFIXES | VIDEO_SUFFIXES
        rows = [row for row in first_rows(root, cls.endings) if len(row) > 1]
        listed = (Path(row[0]).suffix.lower() in media and "/" not in row[1] for row in rows)
        return (root / _OFFICIAL).is_file() or any(listed)

    def _find(self) -> dict[str, IndexList]:
        lists = super()._find()
        if not lists and (self.root / _OFFICIAL).is_file():
            for split, rows in self._official().items():
                lists[split] = IndexList(Path(f"{split}.csv"), partial(list, rows))
        for split, entry in list(lists.items()):
            name = f"{split}_instruments"
            if split in ("train", "val", "test") and name not in lists:
                own = [row for row in self._quietly(entry) if _plain(_label(row[1])) in _PLAIN]
                if own:
                    file = entry.file.with_name(f"{entry.file.stem}_instruments.csv")
                    lists[name] = IndexList(file, partial(list, own))
        return lists

    def _quietly(self, entry: IndexList) -> Rows:
        """Rows of a list whose broken ones are noted when it is read for itself."""
        return entry.make() if entry.make else read_rows(self.root / entry.file, lambda where, why: None)

    def _official(self) -> dict[str, Rows]:
        """Rows of the official list as ``path,label``, by split."""
        lists: dict[str, Rows] = {}
        for where, cells in read_rows(self.root / _OFFICIAL, self.skip):
            try:
                name, start, label, split = (cell.strip() for cell in cells)
                seconds = frame_count(start)
            except (ValueError, DataError) as error:
                self.skip(where, f"The row is not id,start,label,split ({error})")
                continue
            if split in ("train", "test"):
                lists.setdefault(split, []).append((where, [f"{name}_{seconds:06d}.wav", label]))
            else:
                self.skip(where, f"The split is {split!r}, not train or test.")
        return lists

    def _name(self, cell: str) -> str:
        return str(self._audio(cell))

    def _audio(self, cell: str) -> PurePosixPath:
        path = inner_path(cell, parts=1)
        if self.protocol == "default" and "audio" in path.parts[:-1]:
            last = max(place for place, part in enumerate(path.parts[:-1]) if part == "audio")
            return PurePosixPath(*path.parts[last + 1 :])
        return path

    def _clip(self, cells: list[str]) -> Clip:
        audio, label = self._audio(cells[0]), _label(cells)
        if not label or not is_text(label):
            raise DataError(f"The label is {label!r}; give path,label.")
        clip = Clip(id=str(audio.with_suffix("")), audio=Path(audio), labels=(label,))
        return stored_clip(self, audio, audio.with_suffix(".mp4"), clip)

    def _mixture(self, cells: list[str], by_name: dict[str, Clip], split: str) -> tuple[Clip, ...]:
        if self.protocol == "paper":
            cells = [cells[0], ",".join(cells[1:])]
        return super()._mixture(cells, by_name, split)


def _label(cells: list[str]) -> str:
    return ",".join(cells[1:]).strip()


def _plain(label: str) -> str:
    """A label without what scripts that write lists drop from it."""
    return re.sub("[^a-z]", "", label.lower())


_PLAIN = frozenset(_plain(label) for label in INSTRUMENTS)
