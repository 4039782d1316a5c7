"""A plain folder: ``class/clip.mp4`` or ``class/clip.wav``, for one's own recordings.

The class is the folder; ``violin+flute`` is a duet, with both. A sound beside a video of the same name is its sound.
Folders ``train``, ``val`` and ``test`` above the classes are the splits; without them clips are dealt out by the hash
of their id (:func:`avsep_zoo.data.splits.hash_split`). ``mixtures.csv`` may list test mixtures, two paths from the
data folder or more per row; then the clips it names are test clips. Without it ``test`` are pairs of test clips of
different classes. ``protocol`` changes nothing: nothing is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath

from avsep_zoo.data.clip import Clip
from avsep_zoo.data.index_file import inner_path, read_rows, write_rows
from avsep_zoo.data.raw_videos import SOUND_SUFFIXES, VIDEO_SUFFIXES, walk
from avsep_zoo.data.reader import Reader
from avsep_zoo.data.splits import hash_split, pair_up
from avsep_zoo.errors import DataError

__all__ = ["FolderReader"]

_SPLITS = ("train", "val", "test")
_MIXTURES = "mixtures.csv"
_MEDIA = SOUND_SUFFIXES | VIDEO_SUFFIXES


class FolderReader(Reader):
    """A plain folder of clips; it is listed once."""

    @classmethod
    def matches(cls, root: Path) -> bool:
        folders = [p for p in root.iterdir() if p.is_dir()]
        folders += [p for folder in folders if folder.name in _SPLITS for p in folder.iterdir() if p.is_dir()]
        return any(path.suffix.lower() in _MEDIA and path.is_file() for folder in folders for path in folder.iterdir())

    def splits(self) -> tuple[str, ...]:
        return tuple(split for split in _SPLITS if self._by_split[split])

    def clips(self, split: str) -> list[Clip]:
        if split not in self.splits():
            raise DataError(
                f"{str(self.root)!r} has no clips for {split!r}, only for {', '.join(self.splits()) or 'no split'}; "
                "add clips as class/clip.mp4 or class/clip.wav."
            )
        return list(self._by_split[split])

    def mixture_lists(self) -> tuple[str, ...]:
        if (self.root / _MIXTURES).is_file():
            return ("mixtures",)
        return ("test",) if self._by_split["test"] else ()

    def mixtures(self, name: str) -> list[tuple[Clip, ...]]:
        if name not in self.mixture_lists():
            return super().mixtures(name)
        found = self._fixed
        if not found:
            why = "no usable row" if name == "mixtures" else "test clips of one class only"
            raise DataError(
                f"{str(self.root)!r} has {why} for the mixtures {name!r}; give clips of two classes or more."
            )
        return found

    def prepared(self, clip: Clip, target: Path) -> Clip:
        """The clip in a copy in the layout of MUSIC, which the reader ``music`` reads."""
        audio, frames = _row(clip)
        beside = f"{frames}.npy"
        return replace(
            clip,
            audio=target / f"audio{audio}",
            video=None,
            frames=target / f"frames{frames}",
            detections=target / f"detection_results{beside}",
            motion=target / f"motion_features{beside}",
        )

    def write_index(self, target: Path, split: str, clips: Sequence[Clip]) -> None:
        """Write ``<split>.csv`` in the form of MUSIC, and with the test clips ``testsep.csv``."""
        _write(target / f"{split}.csv", [[*_row(clip), str(clip.frame_count)] for clip in clips])
        if split == "test":
            kept = {clip.id for clip in clips}
            mixtures = [mixture for mixture in self._fixed if all(clip.id in kept for clip in mixture)]
            _write(target / "testsep.csv", [[_row(clip)[0] for clip in mixture] for mixture in mixtures])

    @cached_property
    def _above(self) -> tuple[str, ...]:
        """Folders of splits above the classes; empty where there are none."""
        return tuple(s for s in _SPLITS if any(p.is_dir() for p in (self.root / s).glob("*")))

    @cached_property
    def _files(self) -> dict[str, Clip]:
        """Path from the data folder -> clip, one per name, with the video of that name if there are both."""
        clips: dict[str, Clip] = {}
        found: dict[PurePosixPath, str] = {}
        for base in self._above or ("",):
            for path in self._media(base):
                stem = path.with_suffix("")
                shown = str(path)
                kind = VIDEO_SUFFIXES if path.suffix.lower() in VIDEO_SUFFIXES else SOUND_SUFFIXES
                before = clips.get(found.get(stem, ""))
                if before is None:
                    video = self.root / path if kind is VIDEO_SUFFIXES else None
                    clips[shown] = self._clip(base, stem, self.root / path, video)
                    found[stem] = shown
                elif before.video is not None and before.audio == before.video and kind is SOUND_SUFFIXES:
                    clips[shown] = clips[found[stem]] = replace(before, audio=self.root / path)
                elif before.video is None and kind is VIDEO_SUFFIXES:
                    clips[shown] = clips[found[stem]] = replace(before, video=self.root / path)
                else:
                    self.skip(shown, f"There is a clip {str(stem)!r} already; rename one.")
        return clips

    def _media(self, base: str) -> list[PurePosixPath]:
        """Media files in ``base/class``, from the data folder; what stands elsewhere below it is noted."""
        paths = []
        for folder, files in walk(self.root / base):
            for name in files:
                path = PurePosixPath((folder / name).relative_to(self.root))
                if path.suffix.lower() not in _MEDIA or name.startswith("."):
                    continue
                depth = len(path.parts) - bool(base)
                try:
                    if depth != 2:
                        raise DataError("It does not stand in class/clip; move it to the folder of its class.")
                    paths.append(inner_path(str(path)))
                except DataError as error:
                    self.skip(str(path), str(error))
        return paths

    def _clip(self, base: str, stem: PurePosixPath, audio: Path, video: Path | None) -> Clip:
        label, name = stem.parts[-2:]
        labels = dict.fromkeys(part.strip() for part in label.split("+") if part.strip())
        return Clip(id=f"{label}/{name}", audio=audio, labels=tuple(labels), video=video)

    @cached_property
    def _listed(self) -> list[tuple[Clip, ...]]:
        """The mixtures of ``mixtures.csv``, none without it."""
        if not (self.root / _MIXTURES).is_file():
            return []
        mixtures: list[tuple[Clip, ...]] = []
        for where, cells in read_rows(self.root / _MIXTURES, self.skip):
            try:
                names = [str(inner_path(cell)) for cell in cells if cell.strip()]
                missing = [name for name in names if name not in self._files]
                if missing:
                    raise DataError(f"It names {missing[0]!r}, which is no clip here.")
                clips = tuple(self._files[name] for name in names)
                if len(clips) < 2 or len({clip.id for clip in clips}) < len(clips):
                    raise DataError("It does not name two clips or more.")
                if mixtures and len(clips) != len(mixtures[0]):
                    raise DataError(f"It has {len(clips)} clips where the rows before have {len(mixtures[0])}.")
                mixtures.append(clips)
            except DataError as error:
                self.skip(where, str(error))
        return mixtures

    @cached_property
    def _fixed(self) -> list[tuple[Clip, ...]]:
        """The listed mixtures, or pairs of test clips."""
        if (self.root / _MIXTURES).is_file():
            return self._listed
        return [*pair_up([clip for clip in self._by_split["test"] if clip.label is not None])]

    @cached_property
    def _by_split(self) -> dict[str, list[Clip]]:
        clips = dict.fromkeys(self._files.values())
        out: dict[str, list[Clip]] = {split: [] for split in _SPLITS}
        if self._above:
            for clip in clips:
                out[clip.audio.relative_to(self.root).parts[0]].append(clip)
            return out
        tested = {clip.id for mixture in self._listed for clip in mixture}
        dealt = hash_split({clip.id: "+".join(clip.labels) for clip in clips if clip.id not in tested})
        for clip in clips:
            out[dealt.get(clip.id, "test")].append(clip)
        return out


def _row(clip: Clip) -> tuple[str, str]:
    """Sound and frames of a clip in a list of MUSIC."""
    return f"/{clip.id}.wav", f"/{clip.id}.mp4"


def _write(file: Path, rows: list[list[str]]) -> None:
    if rows:
        write_rows(file, rows)
    else:
        file.unlink(missing_ok=True)
