"""What readers of comma-separated lists share: from rows to clips and mixtures, and back to rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path, PurePosixPath

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.find_lists import IndexList, Rows, find_lists, lists_mixtures, tested_list
from avsep_zoo.data.index_file import frame_count, inner_path, read_rows, write_rows
from avsep_zoo.data.raw_videos import RawVideos
from avsep_zoo.data.reader import Protocol, Reader
from avsep_zoo.data.splits import pair_up
from avsep_zoo.errors import DataError

__all__ = ["IndexReader", "counted", "listed_count", "stored_clip"]


class IndexReader(Reader):
    """A reader of lists with a clip per row, and lists with a test mixture per row.

    Where a list of test clips has no list of mixtures, pairs of different classes are offered as ``testsep``;
    they depend on the clips only. What is wrong in published lists is left out by default and kept with
    ``protocol="paper"``: training clips that are test clips too, mixtures of a clip with itself. A path of a mixture
    that the list of test clips does not have is skipped by both. Whether sounds exist is not looked at here, but
    where items are made.
    """

    endings: Sequence[str] = ()

    def __init__(self, root: Path, *, protocol: Protocol = "default", frame_rate: float | None = None) -> None:
        super().__init__(root, protocol=protocol, frame_rate=frame_rate)
        self.videos = RawVideos(root)
        self.folders = tuple(root / name for name in ("audio", "frames", "detection_results", "motion_features"))
        lists = self._find()
        self._lists = {name: entry for name, entry in lists.items() if not lists_mixtures(name)}
        self._pairs = {name: entry for name, entry in lists.items() if lists_mixtures(name)}
        paired = {tested_list(name) for name in self._pairs}
        for split, entry in self._lists.items():
            if split.startswith("test") and split not in paired:
                file = entry.file.with_name(entry.file.name.replace("test", "testsep", 1))
                name = split.replace("test", "testsep", 1)
                self._pairs[name] = IndexList(file, partial(self._pair_up, split))
        self._clips: dict[str, dict[str, Clip]] = {}
        self._cells: dict[str, dict[str, list[str]]] = {}
        self._mixtures: dict[str, list[tuple[list[str], tuple[Clip, ...]]]] = {}

    @abstractmethod
    def _clip(self, cells: list[str]) -> Clip:
        """Read a row; raises DataError where it cannot be used."""

    def _find(self) -> dict[str, IndexList]:
        return find_lists(self.root, self.endings)

    def _name(self, cell: str) -> str:
        """The form in which cells of mixture rows are compared with the first cells of test rows."""
        return str(inner_path(cell, parts=1))

    def _look_up(self, cell: str, clips: dict[str, Clip]) -> Clip | None:
        """The clip that a cell of a mixture row means, among test clips by the form of their first cell."""
        return clips.get(self._name(cell))

    def _row(self, clip: Clip, cells: list[str]) -> list[str]:
        """The row of a clip whose frames were counted."""
        return cells

    def _pair(self, cells: list[str], clips: Sequence[Clip]) -> list[str]:
        """The row of a mixture in a prepared copy."""
        return cells

    def _recording(self, clip: Clip) -> str:
        """What may not be in a list for training and in the list of test clips that belongs to it."""
        return clip.id

    def splits(self) -> tuple[str, ...]:
        return tuple(self._lists)

    def mixture_lists(self) -> tuple[str, ...]:
        return tuple(self._pairs)

    def clips(self, split: str) -> list[Clip]:
        if split not in self._clips:
            self._read_clips(split)
        return list(self._clips[split].values())

    def mixtures(self, name: str) -> list[tuple[Clip, ...]]:
        if name not in self._pairs:
            return super().mixtures(name)
        if name not in self._mixtures:
            self._mixtures[name] = self._read_mixtures(name)
        return [mixture for _, mixture in self._mixtures[name]]

    def write_index(self, target: Path, split: str, clips: Sequence[Clip]) -> None:
        """Write the list of ``split`` and its lists of mixtures in ``target``, in their official form and order.

        A list that would have no row is not written, and removed where it stands from an earlier time.
        """
        known, kept = {clip.id for clip in self.clips(split)}, {clip.id: clip for clip in clips}
        if not kept.keys() <= known:
            raise DataError(f"Clip {min(kept.keys() - known)!r} is not in the list {split!r} of {str(self.root)!r}.")
        rows = [self._row(kept[name], cells) for name, cells in self._cells[split].items() if name in kept]
        self._write(target / self._lists[split].file, rows)
        for name in self._pairs:
            if tested_list(name) == split:
                try:
                    self.mixtures(name)
                except DataError:
                    continue
                pairs = self._mixtures[name]
                mixed = [self._pair(*pair) for pair in pairs if all(clip.id in kept for clip in pair[1])]
                self._write(target / self._pairs[name].file, mixed)

    def _write(self, file: Path, rows: list[list[str]]) -> None:
        if rows:
            write_rows(file, rows)
        else:
            file.unlink(missing_ok=True)

    def _rows(self, entry: IndexList) -> Rows:
        return entry.make() if entry.make else read_rows(self.root / entry.file, self.skip)

    def _pair_up(self, split: str) -> Rows:
        clips = [clip for clip in self.clips(split) if len(clip.labels) < 2]
        rows = [[self._cells[split][clip.id][0] for clip in pair] for pair in pair_up(clips)]
        return [(f"pair {n} of {split}", row) for n, row in enumerate(rows, 1)]

    def _read_clips(self, split: str) -> None:
        if split not in self._lists:
            raise DataError(f"{str(self.root)!r} has no list {split!r}; it has {', '.join(self.splits()) or 'none'}.")
        clips, rows, first = dict[str, Clip](), dict[str, list[str]](), ""
        tested = self._held_out(split)
        for where, cells in self._rows(self._lists[split]):
            try:
                clip = self._clip(cells)
                if clip.id in clips:
                    raise DataError(f"Clip {clip.id!r} is listed before.")
                if self._recording(clip) in tested:
                    raise DataError(f"Clip {clip.id!r} is a test clip too.")
            except DataError as error:
                self.skip(where, str(error))
                first = first or f"{where}: {error}"
            else:
                clips[clip.id], rows[clip.id] = clip, cells
        if not clips:
            raise DataError(
                f"The list {str(self.root / self._lists[split].file)!r} has no usable row ({first or 'it is empty'}); "
                "check that it belongs to this data set."
            )
        self._clips[split], self._cells[split] = clips, rows

    def _held_out(self, split: str) -> set[str]:
        """Recordings that may not be used for training: those of the list of test clips that belongs to it."""
        test = split.replace("train", "test", 1)
        if self.protocol == "paper" or not split.startswith("train") or test not in self._lists:
            return set()
        try:
            return {self._recording(clip) for clip in self.clips(test)}
        except DataError:
            return set()

    def _read_mixtures(self, name: str) -> list[tuple[list[str], tuple[Clip, ...]]]:
        entry, split = self._pairs[name], tested_list(name)
        clips = {clip.id: clip for clip in self.clips(split)}
        by_name = {self._name(cells[0]): clips[identity] for identity, cells in self._cells[split].items()}
        mixtures: list[tuple[list[str], tuple[Clip, ...]]] = []
        first = ""
        for where, cells in self._rows(entry):
            if len(cells) == 1:  # the whole row in quotes
                cells = cells[0].split(",")
            try:
                found = self._mixture([cell for cell in cells if cell.strip()], by_name, split)
                if mixtures and len(found) != len(mixtures[0][1]):
                    raise DataError(f"It has {len(found)} clips where the rows before have {len(mixtures[0][1])}.")
            except DataError as error:
                self.skip(where, str(error))
                first = first or f"{where}: {error}"
            else:
                mixtures.append((cells, found))
        if not mixtures:
            raise DataError(
                f"The list of mixtures {name!r} of {str(self.root)!r} has no usable row "
                f"({first or 'there are none of different classes'}); check that it belongs to {split!r}."
            )
        return mixtures

    def _mixture(self, cells: list[str], by_name: dict[str, Clip], split: str) -> tuple[Clip, ...]:
        found = []
        for cell in cells:
            clip = self._look_up(cell, by_name)
            if clip is None:
                raise DataError(f"It names {cell.strip()!r}, which is not in the list {split!r}.")
            found.append(clip)
        if len(found) < 2:
            raise DataError("It names fewer than two clips.")
        if self.protocol == "default" and len({clip.id for clip in found}) < len(found):
            raise DataError(f"It mixes {cells[0].strip()!r} with itself.")
        return tuple(found)


def stored_clip(reader: IndexReader, audio: PurePosixPath, frames: PurePosixPath, clip: Clip) -> Clip:
    """Fill in where the files of a row belong: ``audio``, ``frames``, ``detection_results``, ``motion_features``."""
    sounds, pictures, detections, motion = reader.folders
    beside = f"{frames}.npy"
    return replace(
        clip,
        audio=sounds / audio,
        video=reader.videos.find(audio.stem, audio.parent.name),
        frames=pictures / frames,
        frame_rate=reader.frame_rate,
        detections=detections / beside,
        detector_classes=reader.detector_classes,
        motion=motion / beside,
    )


def counted(clip: Clip, cells: list[str], column: int = 2) -> list[str]:
    """A row with the number of frames of a clip in its column, as it was where none was counted."""
    if clip.frame_count == 0:
        return cells
    return [*cells[:column], str(clip.frame_count), *cells[column + 1 :]]


def listed_count(cells: list[str], column: int = 2) -> int:
    """The number of frames that a row has, 0 for a row without."""
    return frame_count(cells[column]) if len(cells) > column else 0
