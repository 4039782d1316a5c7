"""Stems on their way out: the folder they go to, the files, and what is said about them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avsep_zoo.cli.terminal import busy, console, print_table
from avsep_zoo.errors import MediaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from avsep_zoo.separation import Separation

__all__ = ["Saved", "check_folder", "levels", "save"]

REPORT = "report.html"
_BLOCK = 2**20  # samples


@dataclass(frozen=True)
class Saved:
    """A separation on disk.

    Args:
        separation: what was saved.
        folder: where.
        files: one WAV file per track, in the order of ``separation.tracks``.
        report: the HTML report, or None.
        localisations: files that say where in the picture sources were found, of the stems that have one, in order.
    """

    separation: Separation
    folder: Path
    files: tuple[Path, ...]
    report: Path | None
    localisations: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what was saved as plain JSON."""
        tracks = []
        for stem, file in zip(self.separation.tracks, self.files, strict=True):
            peak, rms = levels(stem.waveform)
            tracks.append(
                {"name": stem.name, "file": str(file), "peak_dbfs": _rounded(peak), "rms_dbfs": _rounded(rms)}
            )
        count = len(self.separation.stems)
        found = [n for n, place in enumerate(self.separation.localisations or ()) if place is not None]
        for number, file in zip(found, self.localisations, strict=True):
            tracks[number]["localisation"] = str(file)
        return {
            "model": self.separation.method,
            "folder": str(self.folder),
            "rate": self.separation.rate,
            "channels": self.separation.channels,
            "seconds": self.separation.seconds,
            "stems": tracks[:count],
            "residual": tracks[count] if len(tracks) > count else None,
            "report": str(self.report) if self.report else None,
            "sampling": self.separation.sampling,
            "notes": self.separation.notes,
        }

    def show(self, told: Sequence[str] = ()) -> None:
        """Print the files with their levels, what was used, and where the report is; not the notes ``told`` before."""
        saved = self.to_dict()
        rows = [
            (
                track["name"],
                Path(track["file"]).name,
                _decibel(track["peak_dbfs"]),
                _decibel(track["rms_dbfs"]),
            )
            for track in [*saved["stems"], *([saved["residual"]] if saved["residual"] else [])]
        ]
        out = console()
        print_table(("Stem", f"File in {self.folder}", "Peak dBFS", "RMS dBFS"), rows, numbers=(2, 3))
        if self.localisations:
            names = ", ".join(file.name for file in self.localisations)
            out.print(f"\nWhere in the picture: {names}", soft_wrap=True)
        if self.separation.notes:
            out.print()
        for note in self.separation.notes:
            if note not in told:
                out.print(note)
        if self.report is not None:
            out.print(f"Report: {self.report}", soft_wrap=True)


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Make sure that stems can go to ``folder`` before any work is done.

    Raises:
        MediaError: it is a file, or holds something and ``overwrite`` is not set.
    """
    if folder.exists() and not folder.is_dir():
        raise MediaError(f"{folder} is a file; give a folder for the stems.")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise MediaError(f"The folder {folder} is not empty; give another one with -o, or --overwrite.")


def save(separation: Separation, folder: Path, *, report: bool, overwrite: bool = False) -> Saved:
    """Write stems, and the report beside them; the report of an earlier separation does not stay.

    Raises:
        MediaError: a file cannot be written.
    """
    with busy("Writing the stems"):
        files = separation.save(folder, overwrite=overwrite)
        page = folder / REPORT
        page.unlink(missing_ok=True)
        if report:
            separation.report(page)
    waves, maps = (tuple(file for file in files if file.suffix == suffix) for suffix in (".wav", ".npz"))
    return Saved(separation, folder, waves, page if report else None, maps)


def levels(waveform: np.ndarray) -> tuple[float, float]:
    """Return peak and RMS of (channels, samples) in dBFS: 0 is full scale, -inf silence."""
    import numpy as np

    peak = energy = 0.0
    for start in range(0, waveform.shape[1], _BLOCK):
        block = np.asarray(waveform[:, start : start + _BLOCK], dtype=np.float64)
        peak = max(peak, float(np.abs(block).max()))
        energy += float(np.square(block).sum())
    rms = math.sqrt(energy / max(1, waveform.size))
    return 20 * math.log10(peak) if peak else -math.inf, 20 * math.log10(rms) if rms else -math.inf


def _rounded(level: float) -> float | None:
    return round(level, 2) if math.isfinite(level) else None


def _decibel(level: float | None) -> str:
    return "silent" if level is None else f"{level:.1f}"
