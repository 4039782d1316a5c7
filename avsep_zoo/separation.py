"""The result of a separation: stems, residual and what they were made from."""

from __future__ import annotations

import json
import math
import secrets
import shutil
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avsep_zoo.errors import CueError, MediaError
from avsep_zoo.media.wav import whole_file, write_wav

__all__ = ["Localisation", "Separation", "Stem"]

MANIFEST = "separation.json"
SAVED = (".wav", ".localisation.npz")  # how names of files end that a manifest may name
FORBIDDEN = frozenset('<>:"/\\|?*')
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))})
NAME_BYTES = 120


@dataclass(eq=False)
class Stem:
    """One separated source.

    Args:
        name: what the cue was called.
        waveform: (channels, samples) float32, full scale 1; may be a memory map.
        mask: (F, T) float16 or float32 in [0, 1]: the mask in the domain of the model, row 0 the lowest frequency.
    """

    name: str
    waveform: np.ndarray
    mask: np.ndarray | None = None


@dataclass(eq=False, repr=False)
class Localisation:
    """Where in the picture a source was found, by its sound: one map per segment of the recording, S in all.

    Args:
        times: (S,) seconds of the recording: the middle of each segment.
        regions: (S, 4) x1, y1, x2, y2 in pixels: what of the picture each map shows; may lie partly outside it.
        maps: (S, h, w) float16 in [0, 1], row 0 at the top of the region.
        pictures: number of a map -> its picture, uint8 (H, W, 3) RGB; of a few of them only.

    Raises:
        ValueError: these do not belong together, or are no such numbers.
    """

    times: np.ndarray
    regions: np.ndarray
    maps: np.ndarray
    pictures: Mapping[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        times, regions, maps = self.times, self.regions, self.maps
        if maps.ndim != 3 or 0 in maps.shape or times.shape != maps.shape[:1] or regions.shape != (len(maps), 4):
            raise ValueError(
                f"The localisation has times {times.shape}, regions {regions.shape} and maps {maps.shape}; give (S,), "
                "(S, 4) and (S, h, w)."
            )
        if not (np.isfinite(times).all() and np.isfinite(regions).all() and ((maps >= 0) & (maps <= 1)).all()):
            raise ValueError("The localisation has times or regions that are not finite, or maps outside [0, 1].")
        for number, picture in self.pictures.items():
            if not 0 <= number < len(maps):
                raise ValueError(f"There is a picture of map {number} of {len(maps)}; count from 0.")
            if picture.ndim != 3 or picture.shape[2] != 3 or picture.size == 0 or picture.dtype != np.uint8:
                raise ValueError(f"A picture is {picture.dtype} of shape {picture.shape}; give uint8 RGB (H, W, 3).")

    def __repr__(self) -> str:
        segments, rows, columns = self.maps.shape
        return f"Localisation({segments} x {rows} x {columns}, {len(self.pictures)} pictures)"


@dataclass(eq=False, repr=False, kw_only=True)
class Separation:
    """What :meth:`avsep_zoo.SeparationModel.separate` returns: one stem per cue.

    Args:
        stems: in the order of the cues.
        residual: what no stem claims; stems and residual add up to the mixture, unless one of several cues is
            negated (:attr:`adds_up`).
        mixture: (channels, samples) float32; may be a memory map.
        rate: sample rate in Hz of all waveforms.
        method: name of the model, e.g. ``iquery.mini``.
        cues: what was asked for, one JSON-able description per stem.
        notes: what was and was not used, one sentence each.
        frames: per cue the picture it points at, uint8 (H, W, 3) RGB, or None.
        boxes: per cue (x1, y1, x2, y2) in pixels of its picture, or None.
        localisations: per cue where in the picture its source was found, or None; None where the model does not say.
        mask_seconds: seconds from one column of the masks to the next.
        mask_frequencies: (F,) Hz of the rows of the masks, ascending.
        scores: stem name -> {"before": SDR of the mixture, "after": SDR of the stem} in dB, where the true
            sources are known.
        sampling: of a generative model: ``seed``, ``steps``, ``solver``, and network ``evaluations`` per source and
            segment.
    """

    stems: list[Stem]
    residual: Stem | None = None
    mixture: np.ndarray
    rate: int
    method: str
    cues: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    frames: Sequence[np.ndarray | None] | None = None
    boxes: Sequence[Sequence[float] | None] | None = None
    localisations: Sequence[Localisation | None] | None = None
    mask_seconds: float | None = None
    mask_frequencies: np.ndarray | None = None
    scores: Mapping[str, Mapping[str, float]] | None = None
    sampling: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if self.mixture.ndim != 2:
            raise ValueError(f"The mixture has shape {self.mixture.shape}; give (channels, samples).")
        for stem in self.tracks:
            if stem.waveform.shape != self.mixture.shape:
                raise ValueError(
                    f"The stem {stem.name!r} has shape {stem.waveform.shape}; give {self.mixture.shape}, "
                    "the shape of the mixture."
                )
        per_stem = {"frames": self.frames, "boxes": self.boxes, "localisations": self.localisations}
        for name, values in {"cues": self.cues or None, **per_stem}.items():
            if values is not None and len(values) != len(self.stems):
                raise ValueError(f"There are {len(values)} {name} for {len(self.stems)} stems; give one per stem.")
        for stem in self.stems:
            if stem.mask is not None and self.mask_frequencies is not None:
                rows = len(self.mask_frequencies)
                if stem.mask.ndim != 2 or stem.mask.shape[0] != rows:
                    raise ValueError(f"The mask of {stem.name!r} has shape {stem.mask.shape}; give ({rows}, T).")

    def __repr__(self) -> str:
        names = ", ".join(stem.name for stem in self.tracks)
        return f"Separation({names}: {self.seconds:.2f} s, {self.channels} ch, {self.rate} Hz, by {self.method})"

    @property
    def tracks(self) -> list[Stem]:
        """The stems, and the residual where there is one."""
        return [*self.stems, self.residual] if self.residual is not None else list(self.stems)

    @property
    def channels(self) -> int:
        """Channels of every waveform."""
        return self.mixture.shape[0]

    @property
    def seconds(self) -> float:
        """Length of every waveform in seconds."""
        return self.mixture.shape[1] / self.rate

    @property
    def adds_up(self) -> bool:
        """Whether stems and residual add up to the mixture; beside a negated stem some sounds are heard twice."""
        negated = any(cue.get("negated") for cue in self.cues)
        return self.residual is not None and (len(self.stems) == 1 or not negated)

    def stem(self, name: str) -> Stem:
        """Return the stem called ``name``.

        Raises:
            CueError: no stem, or more than one, has that name.
        """
        found = [stem for stem in self.stems if stem.name == name]
        if len(found) != 1:
            names = ", ".join(repr(stem.name) for stem in self.stems)
            raise CueError(f"{len(found) or 'No'} stems are called {name!r}; the stems are {names}.")
        return found[0]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> list[Path]:
        """Write ``<stem>.wav`` per stem, ``residual.wav`` and ``separation.json``; return their paths.

        The WAV files are 32-bit float, at the rate and channels of the mixture. Where a source was found in the picture
        goes to ``<stem>.localisation.npz``: the arrays ``times``, ``regions`` and ``maps`` of its
        :class:`Localisation`. Everything is written to a temporary folder first, and ``separation.json`` is put in
        place last: a folder that has it is whole.

        Args:
            folder: created with its parents.
            overwrite: replace files of the same name, and the files of an earlier separation in ``folder``.

        Raises:
            MediaError: the folder holds something already, or cannot be written.
        """
        target = Path(folder)
        if target.exists() and not target.is_dir():
            raise MediaError(f"{folder} is a file; give a folder to save the stems in.")
        if not overwrite and target.is_dir() and any(target.iterdir()):
            raise MediaError(f"The folder {folder} is not empty; give another or overwrite=True.")
        names = [f"{name}.wav" for name in safe_names(stem.name for stem in self.stems)]
        if self.residual is not None:
            names.append("residual.wav")
        located = self._located(names)
        manifest = self._manifest(names)
        files = [*names, *located, MANIFEST]
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            part = target.absolute().with_name(f".{target.absolute().name}.{secrets.token_hex(4)}.part")
            part.mkdir()
            try:
                for name, stem in zip(names, self.tracks, strict=True):
                    write_wav(part / name, stem.waveform, self.rate)
                for name, found in located.items():
                    np.savez(part / name, times=found.times, regions=found.regions, maps=found.maps)
                (part / MANIFEST).write_text(manifest, encoding="utf-8")
                _put_in_place(part, target, files)
            finally:
                shutil.rmtree(part, ignore_errors=True)
        except OSError as error:
            raise MediaError(f"The stems could not be written to {folder} ({error.strerror}).") from error
        return [target / name for name in files]

    def report(self, path: str | Path, *, title: str | None = None) -> Path:
        """Write one HTML file with players, spectrograms, masks, pictures and numbers; it needs no other.

        Args:
            path: name of the file; its folder exists. An existing file is replaced.
            title: heading of the page.

        Raises:
            MediaError: the file cannot be written.
        """
        from avsep_zoo.report import render

        try:
            with whole_file(path) as part:
                part.write_text(render(self, title or f"Sound separated by {self.method}"), encoding="utf-8")
        except OSError as error:
            raise MediaError(f"The report {path} could not be written ({error.strerror}).") from error
        return Path(path)

    def _located(self, names: Sequence[str]) -> dict[str, Localisation]:
        """The localisations by their files, which are named as the WAV files of the stems."""
        pairs = zip(names, self.localisations or (), strict=False)
        return {_beside(name): found for name, found in pairs if found is not None}

    def _manifest(self, names: Sequence[str]) -> str:
        stems: list[dict[str, Any]]
        stems = [{"name": s.name, "file": n} for s, n in zip(self.stems, names, strict=False)]
        for stem, cue in zip(stems, self.cues, strict=False):
            stem["cue"] = cue
        for stem, found in zip(stems, self.localisations or (), strict=False):
            if found is not None:
                stem["localisation"] = _beside(stem["file"])
        content = {
            "method": self.method,
            "rate": self.rate,
            "channels": self.channels,
            "samples": self.mixture.shape[1],
            "stems": stems,
            "residual": None if self.residual is None else {"file": names[-1]},
            "notes": self.notes,
            "sampling": self.sampling,
            "scores": None if self.scores is None else {k: _finite(v) for k, v in self.scores.items()},
        }
        return json.dumps(content, indent=2, ensure_ascii=False, default=_plain) + "\n"


def safe_names(names: Iterable[str]) -> list[str]:
    """Turn stem names into file names without extension: one path component each, unique whatever the case.

    Letters of any script stay; separators, control characters and what Windows forbids become ``_``; a name
    that is taken, or ``residual``, gets ``-2``, ``-3``, ...
    """
    taken = {"residual"}
    safe = []
    for name in names:
        text = unicodedata.normalize("NFC", name)
        text = "".join("_" if c in FORBIDDEN or unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
        text = text.strip(" .").encode()[:NAME_BYTES].decode(errors="ignore").strip(" .")
        if not text.strip("_"):
            text = "stem"
        if text.split(".")[0].casefold() in DEVICES:
            text = f"_{text}"
        unique, count = text, 1
        while unique.casefold() in taken:
            count += 1
            unique = f"{text}-{count}"
        taken.add(unique.casefold())
        safe.append(unique)
    return safe


def _beside(name: str) -> str:
    """The file of the localisation beside a WAV file."""
    return name.removesuffix(".wav") + ".localisation.npz"


def _put_in_place(part: Path, target: Path, names: Sequence[str]) -> None:
    """Move the files of ``part`` to ``target``, the manifest last; remove those of an earlier separation."""
    if not target.exists():
        part.rename(target)
        return
    earlier = _earlier_files(target)
    (target / MANIFEST).unlink(missing_ok=True)
    for old in earlier:
        if old not in names:
            (target / old).unlink(missing_ok=True)
    for name in names:
        (part / name).replace(target / name)


def _earlier_files(folder: Path) -> list[str]:
    """Return the files an earlier separation wrote, by its manifest; only plain names in the folder."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        entries = [*content["stems"], *([content["residual"]] if content["residual"] else [])]
        files = [str(entry["file"]) for entry in entries]
        files += [str(entry["localisation"]) for entry in entries if "localisation" in entry]
    except (OSError, ValueError, TypeError, KeyError):
        return []
    return [file for file in files if file.endswith(SAVED) and Path(file).name == file]


def _finite(scores: Mapping[str, float]) -> dict[str, float | None]:
    return {name: float(value) if math.isfinite(value) else None for name, value in scores.items()}


def _plain(value: object) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)
