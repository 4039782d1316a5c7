"""MUSIC and MUSIC-21 (Zhao et al., 2018 and 2019), in the forms that the lists are published in.

A row is ``audio,frames,count`` such as ``/cello/AbC.wav,/cello/AbC.mp4,137``; the class is the first folder,
``violin+flute`` for a duet. Paths are joined to ``audio``, ``frames``, ``detection_results`` and ``motion_features``
below the data folder; lists stand in it or in ``annotations``. A row of mixtures has two audio paths or more,
which are looked up in the list of test clips; a row that names another is skipped. Known names are
``trainmusic``, ``testmusic``, ``testsepmusic`` and the same with ``music21`` (iQuery), ``train``, ``val``, ``test``,
``testsep`` (DAVIS), ``train``, ``test``, ``test_sep_2`` (BiModalSep).

Without any list the official ``MUSIC_solo_videos.json``, ``MUSIC21_solo_videos.json`` and
``MUSIC_duet_videos.json`` (``videos``: class, or classes with a blank between, -> video ids) are read: solos are split
by the hash of their id, duets are the split ``duets``.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.find_lists import IndexList, Rows, first_rows
from avsep_zoo.data.index_file import inner_path
from avsep_zoo.data.index_reader import IndexReader, counted, listed_count, stored_clip
from avsep_zoo.data.splits import hash_split
from avsep_zoo.errors import DataError

__all__ = ["MusicReader"]


class MusicReader(IndexReader):
    """MUSIC and MUSIC-21."""

    endings = ("music", "music21")

    @classmethod
    def matches(cls, root: Path) -> bool:
        rows = first_rows(root, cls.endings)
        listed = any(len(row) > 1 and all("/" in cell.strip("/") for cell in row[:2]) for row in rows)
        return listed or (not rows and any(root.glob("MUSIC*_videos.json")))

    def _find(self) -> dict[str, IndexList]:
        lists = super()._find()
        files = [] if lists else sorted(self.root.glob("*_videos.json"))
        rows: dict[str, tuple[str, list[str]]] = {}  # a video that several files name is one row
        for file in files:
            rows |= {row[1][0]: row for row in self._videos(file) if row[1][0] not in rows}
        solos = {audio: audio.split("/")[1] for audio in rows if "+" not in audio.split("/")[1]}
        split = hash_split(solos)
        for name in ("train", "val", "test", "duets"):
            mine = [row for audio, row in rows.items() if split.get(audio, "duets") == name]
            if mine:
                lists[name] = IndexList(Path(f"{name}.csv"), partial(list, mine))
        return lists

    def _videos(self, file: Path) -> Rows:
        """Rows for the videos that an official JSON list names."""
        try:
            videos: Any = json.loads(file.read_bytes())["videos"]
            listed = [(label.split(), [name + "" for name in ids]) for label, ids in videos.items()]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
            raise DataError(
                f"The list {str(file)!r} cannot be read ({type(error).__name__}: {error}); give the official one, "
                "with 'videos': class -> ids."
            ) from error
        stems = [f"/{'+'.join(labels)}/{name}" for labels, ids in listed for name in ids]
        return [(f"{file.name} {stem}", [f"{stem}.wav", f"{stem}.mp4"]) for stem in stems]

    def _clip(self, cells: list[str]) -> Clip:
        if len(cells) < 2:
            raise DataError("The row has fewer than 2 columns; give audio,frames,count.")
        audio, frames = inner_path(cells[0]), inner_path(cells[1])
        clip = Clip(
            id=str(audio.with_suffix("")),
            audio=Path(audio),
            labels=tuple(audio.parts[0].split("+")),
            frame_count=listed_count(cells),
        )
        return stored_clip(self, audio, frames, clip)

    def _row(self, clip: Clip, cells: list[str]) -> list[str]:
        return counted(clip, cells)
