"""AudioCaps (Kim et al., 2019) with captions parsed into their sources, as BiModalSep uses it.

``parsed_all_caps.json`` holds ``{"91139": {"file_id": "AbC_30", "caption": ..., "sources": [...]}}``, with the sound in
``audio/<file_id>.wav``. ``train_ids.csv`` has a caption id per row, ``test_sep2_ids.csv`` the ids of a mixture; the
test clips are those it names unless there is ``test_ids.csv``. Where these lists, which are not published, are
missing, the official ``train.csv``, ``val.csv`` and ``test.csv`` (``audiocap_id,youtube_id,start_time,caption``) tell
the splits, or else the hash of the file. Where the JSON is missing, the captions of the official lists are parsed.

Clips have no class; ``text`` is the caption, ``phrases`` are its sources. Captions of a file that is tested are not
trained on by default. Where the sound is not prepared, videos ``<file_id>`` are looked for, or whole ones that the
part before the last underscore of the file id names, with the start in seconds after it (published: the first
underscore, wrong for ids with one).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeGuard

from avsep_zoo.data.captions import parse_caption
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.find_lists import IndexList, Rows
from avsep_zoo.data.index_file import first_row, inner_path, is_text, read_rows, write_lines
from avsep_zoo.data.index_reader import IndexReader, stored_clip
from avsep_zoo.data.splits import hash_split
from avsep_zoo.errors import DataError

__all__ = ["AudioCapsReader"]

_CAPTIONS = "parsed_all_caps.json"
_OFFICIAL = ["audiocap_id", "youtube_id", "start_time", "caption"]
_SECONDS = 10.0
_PAIRS = "test_sep2"


class AudioCapsReader(IndexReader):
    """AudioCaps; a clip is a caption."""

    @classmethod
    def matches(cls, root: Path) -> bool:
        folders = (root, root / "annotations")
        return any((folder / _CAPTIONS).is_file() or _official_lists(folder) for folder in folders)

    @cached_property
    def _folder(self) -> Path:
        """Where the captions and lists stand, below the root."""
        here = (self.root / _CAPTIONS).is_file() or _official_lists(self.root)
        return Path() if here else Path("annotations")

    @cached_property
    def _captions(self) -> dict[str, Any]:
        file = self.root / self._folder / _CAPTIONS
        official = _official_lists(self.root / self._folder)
        if official and not file.is_file():
            return {name: entry for listed in official.values() for name, entry in self._parsed(listed)}
        try:
            captions = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"The captions {str(file)!r} cannot be read ({error}); give {_CAPTIONS}.") from error
        if not isinstance(captions, dict):
            raise DataError(f"The captions {str(file)!r} are no object of caption ids; give {_CAPTIONS}.")
        return captions

    def _parsed(self, file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Caption ids and captions of an official list."""
        for where, cells in read_rows(file, self.skip)[1:]:
            if len(cells) == len(_OFFICIAL):
                name, video, start, caption = (cell.strip() for cell in cells)
                yield name, {"file_id": f"{video}_{start}", "caption": caption, "sources": parse_caption(caption)}
            else:
                self.skip(where, f"The row has {len(cells)} columns; give {','.join(_OFFICIAL)}.")

    def _find(self) -> dict[str, IndexList]:
        lists = {
            file.stem.removesuffix("_ids"): IndexList(self._folder / file.name)
            for file in sorted((self.root / self._folder).glob("*_ids.csv"))
            if file.stem.startswith(("train", "val", "test"))
        }
        if not lists:
            for name, file in _official_lists(self.root / self._folder).items():
                lists[name] = IndexList(self._folder / f"{name}_ids.csv", partial(self._official_ids, file))
        if not lists:
            files = {str(name): str(entry.get("file_id")) for name, entry in self._captions.items() if _is_entry(entry)}
            split = hash_split(dict.fromkeys(files.values(), ""))
            for name in ("train", "val", "test"):
                rows = [(f"{_CAPTIONS} {i}", [i]) for i, file in files.items() if split[file] == name]
                lists[name] = IndexList(self._folder / f"{name}_ids.csv", partial(list, rows))
        pairs = [entry for name, entry in lists.items() if name.startswith("test_sep")]
        if pairs and "test" not in lists:
            lists["test"] = IndexList(self._folder / "test_ids.csv", partial(self._named, pairs))
        elif "test" in lists and not pairs:
            lists[_PAIRS] = IndexList(self._folder / f"{_PAIRS}_ids.csv", partial(self._pair_up, "test"))
        return lists

    def _official_ids(self, file: Path) -> Rows:
        """A row for every caption of an official list; what cannot be read is noted with the captions."""
        return [(where, cells[:1]) for where, cells in read_rows(file, lambda where, why: None)[1:]]

    def _named(self, pairs: Sequence[IndexList]) -> Rows:
        """A row for every caption that lists of mixtures name."""
        rows: dict[str, tuple[str, list[str]]] = {}
        for entry in pairs:
            for where, cells in read_rows(self.root / entry.file, lambda where, why: None):
                for cell in cells:
                    rows.setdefault(cell.strip(), (where, [cell.strip()]))
        return list(rows.values())

    def _name(self, cell: str) -> str:
        return cell.strip()

    def _recording(self, clip: Clip) -> str:
        return clip.audio.name

    def _clip(self, cells: list[str]) -> Clip:
        name = cells[0].strip()
        entry = self._captions.get(name)
        if not _is_entry(entry):
            raise DataError(f"Caption {name[:40]!r} is not in {_CAPTIONS} with file_id, caption and sources.")
        audio = inner_path(f"{entry['file_id']}.wav", parts=1)
        if len(audio.parts) > 1:
            raise DataError(f"The file_id {entry['file_id']!r} of caption {name!r} has folders; give a file name.")
        clip = Clip(id=name, audio=Path(audio), text=entry["caption"].strip(), phrases=tuple(entry["sources"]))
        clip = stored_clip(self, audio, audio.with_suffix(".mp4"), clip)
        return clip if clip.video is not None else self._in_whole_video(clip, entry["file_id"])

    def _in_whole_video(self, clip: Clip, file_id: str) -> Clip:
        video, _, start = file_id.partition("_") if self.protocol == "paper" else file_id.rpartition("_")
        path = self.videos.find(video)
        if path is None:
            return clip
        if not (start.isascii() and start.isdigit() and len(start) < 9):
            raise DataError(f"The file_id {file_id!r} has the start {start!r}; give seconds after the underscore.")
        return replace(clip, video=path, start=float(start), duration=_SECONDS)

    def write_index(self, target: Path, split: str, clips: Sequence[Clip]) -> None:
        """As every reader, and with the captions of all splits."""
        super().write_index(target, split, clips)
        text = json.dumps(self._captions, ensure_ascii=True)
        write_lines(target / self._folder / _CAPTIONS, [text])


def _official_lists(folder: Path) -> dict[str, Path]:
    """The official lists in a folder by split."""
    files = {split: folder / f"{split}.csv" for split in ("train", "val", "test")}
    return {split: file for split, file in files.items() if first_row(file) == _OFFICIAL}


def _is_entry(entry: Any) -> TypeGuard[dict[str, Any]]:
    if not isinstance(entry, dict) or not isinstance(entry.get("sources"), list):
        return False
    texts = [entry.get("file_id"), entry.get("caption"), *entry["sources"]]
    return all(isinstance(text, str) and text.strip() and is_text(text) for text in texts)
