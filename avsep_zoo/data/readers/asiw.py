"""ASIW, Audio Separation in the Wild (Chatterjee et al., 2021): AudioCaps videos with detected sounding objects.

Sound is ``Extracted_Audio/<train|test>/<id>.aac``. ``Extracted_Frames/<train|test>/<id>`` holds
``Vision_Text_Labels.csv`` (the objects that sound, :mod:`avsep_zoo.data.asiw_labels`), and
``Image_info_20obj.json`` with ``Image_feature_20obj.h5``: all are ``Clip.detections``, which
:func:`avsep_zoo.data.detections.read_detections` reads. Graphs of a scene are made from these by a method.

Ids stand in ``<split>.txt``, one per line, or else in the official pickle: a list of the sets train, val and test,
read by an unpickler that admits sets, lists, tuples and strings only. What is published, and repeated with
``protocol="paper"``: the third set serves for everything but training, and a test video has the one label of
its first row. No list of test mixtures is published; ``test`` are pairs without a class in common.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from avsep_zoo.data.asiw_labels import read_sounding_objects
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.index_file import inner_path, read_lines, write_lines
from avsep_zoo.data.reader import Reader
from avsep_zoo.data.splits import pair_up
from avsep_zoo.errors import DataError

__all__ = ["AsiwReader"]

_SETS = {"train": 0, "val": 1, "test": 2}


class AsiwReader(Reader):
    """ASIW. Videos without sound or without labels are skipped; the folders are listed once."""

    @classmethod
    def matches(cls, root: Path) -> bool:
        return (root / "Extracted_Audio").is_dir()

    def splits(self) -> tuple[str, ...]:
        listed = bool(self._pickles)
        return tuple(split for split in _SETS if listed or (self.root / f"{split}.txt").is_file())

    def clips(self, split: str) -> list[Clip]:
        if split not in self._read:
            self._read[split] = self._clips(split)
        return list(self._read[split])

    def mixture_lists(self) -> tuple[str, ...]:
        return ("test",) if "test" in self.splits() else ()

    def mixtures(self, name: str) -> list[tuple[Clip, ...]]:
        if name not in self.mixture_lists():
            return super().mixtures(name)
        pairs = pair_up(self.clips("test"))
        if not pairs:
            raise DataError(
                f"The test videos of {str(self.root)!r} all have a class in common; no mixture can be made."
            )
        return [tuple(pair) for pair in pairs]

    def prepared(self, clip: Clip, target: Path) -> Clip:
        """As every reader; the sound is a WAV file there."""
        copy = super().prepared(clip, target)
        return replace(copy, audio=copy.audio.with_suffix(".wav"))

    def write_index(self, target: Path, split: str, clips: Sequence[Clip]) -> None:
        """Write ``<split>.txt``; without clips there is none."""
        file = target / f"{split}.txt"
        if clips:
            write_lines(file, [clip.id for clip in clips])
        else:
            file.unlink(missing_ok=True)

    @cached_property
    def _read(self) -> dict[str, list[Clip]]:
        return {}

    @cached_property
    def _pickles(self) -> list[Path]:
        return sorted(p for p in self.root.iterdir() if p.suffix in (".pkl", ".pickle"))

    @cached_property
    def _sets(self) -> list[list[str]]:
        if len(self._pickles) != 1:
            names = ", ".join(p.name for p in self._pickles) or "none"
            raise DataError(
                f"{str(self.root)!r} has the pickles {names}; keep one, or write <split>.txt with an id per line."
            )
        return _read_sets(self._pickles[0])

    @cached_property
    def _folders(self) -> dict[str, dict[str, Path]]:
        """Folder -> video id -> its sound, from one listing of each."""
        folders = sorted(p for p in (self.root / "Extracted_Audio").glob("*") if p.is_dir())
        return {folder.name: {file.stem: file for file in sorted(folder.iterdir())} for folder in folders}

    def _ids(self, split: str) -> list[tuple[str, str]]:
        if split not in self.splits():
            raise DataError(f"{str(self.root)!r} has no list {split!r}; it has {', '.join(self.splits()) or 'none'}.")
        file = self.root / f"{split}.txt"
        if file.is_file():
            return [(where, line.strip()) for where, line in read_lines(file)]
        which = 2 if self.protocol == "paper" and split != "train" else _SETS[split]
        return [(f"{self._pickles[0].name} set {which}", name) for name in self._sets[which]]

    def _clips(self, split: str) -> list[Clip]:
        clips: dict[str, Clip] = {}
        tested = {name for _, name in self._ids("test")} if self._holds_out(split) else set()
        for where, name in self._ids(split):
            try:
                if name in clips:
                    raise DataError(f"Video {name!r} is listed before.")
                if name in tested:
                    raise DataError(f"Video {name!r} is a test video too.")
                clips[name] = self._clip(name, split)
            except DataError as error:
                self.skip(f"{where} {name!r}", str(error))
        if not clips:
            why = self.skipped[-1].why if self.skipped else "it is empty"
            raise DataError(f"The list {split!r} of {str(self.root)!r} has no usable video ({why}).")
        return list(clips.values())

    def _holds_out(self, split: str) -> bool:
        return split == "train" and self.protocol == "default" and "test" in self.splits()

    def _clip(self, name: str, split: str) -> Clip:
        if len(inner_path(name, parts=1).parts) != 1 or "/" in name:
            raise DataError(f"{name!r} is no video id.")
        folder = next((f for f in (split, *self._folders) if name in self._folders.get(f, {})), None)
        if folder is None:
            raise DataError(f"Extracted_Audio has no sound of video {name!r}.")
        frames = self.root / "Extracted_Frames" / folder / name
        objects = read_sounding_objects(frames)
        if self.protocol == "paper" and split != "train":
            objects = objects[:1]
        labels = dict.fromkeys(found.name for found in objects)
        return Clip(id=name, audio=self._folders[folder][name], labels=tuple(labels), detections=frames)


class _SetsUnpickler(pickle._Unpickler):
    """Reads containers and strings; whatever names a class or function but a set is refused.

    The one in Python, as the one in C takes any amount of memory that a few bytes ask for.
    """

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in ("set", "frozenset"):
            return {"set": set, "frozenset": frozenset}[name]
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def _read_sets(file: Path) -> list[list[str]]:
    """The ids of three sets, each in alphabetical order."""
    try:
        with file.open("rb") as stream:
            sets = _SetsUnpickler(stream, encoding="utf-8").load()
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        raise DataError(
            f"The list {str(file)!r} is refused ({type(error).__name__}: {error}); give three sets of ids."
        ) from error
    kinds = (set, frozenset, list, tuple)
    if not (isinstance(sets, list | tuple) and len(sets) == 3 and all(isinstance(ids, kinds) for ids in sets)):
        raise DataError(f"The list {str(file)!r} is not three sets of ids; write <split>.txt with an id per line.")
    if not all(isinstance(name, str) for ids in sets for name in ids):
        raise DataError(f"The list {str(file)!r} has ids that are no strings; write <split>.txt with an id per line.")
    return [sorted(ids) for ids in sets]
