"""Clean-up of raw detections: of every frame the best box of what the clip is a solo of, and no others.

Files hold rows of frame, class, score, x1, y1, x2, y2; classes are those of the published detector, from 1
(:data:`avsep_zoo.data.readers.duets.DETECTED`). A folder of them, ``raw/<instrument>/<video>_<number>.npy``, is cleaned
up once, before the lists of clips are written::

    from pathlib import Path
    from avsep_ial_cms.detection_cleanup import clean_folder

    for clip in clean_folder(Path("raw"), Path("data/detect")):
        print(clip.where, clip.why)  # these have no file in data/detect: leave them out of the lists

Source: the official code of Independency Adversarial Learning for Cross-Modal Sound Separation, AAAI 2024.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avsep_zoo.data.detections import read_detections
from avsep_zoo.data.reader import Skipped
from avsep_zoo.data.readers.duets import DETECTED
from avsep_zoo.errors import DataError
from avsep_zoo.replaced import remove, replaced

__all__ = ["EXCLUDED", "clean_folder", "clean_rows", "video_of"]

EXCLUDED = {
    "erhu": frozenset(
        ("DlqCn_xrNRU", "37HdHAzJrOQ", "-e5DuAUwBgA", "-7l7M6vMm1k", "0oKi3ARn640", "8rb-thew50c", "JEDgAVcR_yE")
    ),
    "xylophone": frozenset(("5lm9laLSORc", "Jtq-HDS3Zdc", "oQJVBH6ST7o", "Sw8346DYwME")),
}
"""Videos of an instrument whose detections are all dropped."""

_CONFIDENT = 0.9  # least score of most instruments
_DOUBTFUL = 0.94  # largest score of erhus: the detector is surer of what it knows


def clean_rows(rows: np.ndarray, instrument: str, video: str, *, best: int = 1) -> np.ndarray:
    """Return the rows that are kept, (n', 7): frames in the order in which they first appear in all rows.

    A row of an instrument is kept where it is of its class and its score is at least 0.9. Xylophones are kept at any
    score, and erhus, which the detector does not know, in any class at scores up to 0.94; some videos of both are
    dropped. Of every frame the best row of each class is left, and of these the ``best``, the best one last.

    Args:
        rows: (n, 7): frame, class, score, x1, y1, x2, y2.
        instrument: a class of the data set.
        video: id of the video that the clip is of.
        best: rows per frame.

    Raises:
        DataError: the rows have another shape, or there is no rule for the instrument.
    """
    if rows.ndim != 2 or rows.shape[1] != 7:
        raise DataError(f"The detections have the shape {rows.shape}; give (n, 7).")
    usable = _usable(rows, instrument, video)
    kept = [rows[:0]]
    for frame in dict.fromkeys(rows[:, 0].tolist()):
        here = rows[usable & (rows[:, 0] == frame)]
        classes = [here[here[:, 1] == number] for number in dict.fromkeys(here[:, 1].tolist())]
        tops = [of_class[of_class[:, 2].argmax()] for of_class in classes]
        kept.append(np.array(sorted(tops, key=lambda row: row[2])[-best:], dtype=rows.dtype).reshape(-1, 7))
    return np.concatenate(kept)


def _usable(rows: np.ndarray, instrument: str, video: str) -> np.ndarray:
    """Which rows may be kept: bool (n,)."""
    if instrument != "erhu" and instrument not in DETECTED:
        raise DataError(f"There is no rule for detections of {instrument!r}; give erhu, {', '.join(DETECTED)}.")
    if video in EXCLUDED.get(instrument, ()):
        return np.zeros(len(rows), dtype=bool)
    if instrument == "erhu":
        return np.asarray(rows[:, 2] <= _DOUBTFUL)
    its = np.rint(rows[:, 1]) == DETECTED.index(instrument) + 1
    return np.asarray(its if instrument == "xylophone" else its & (rows[:, 2] >= _CONFIDENT))


def video_of(clip: str) -> str:
    """The video of a clip ``<video>_<number>``: its name without the last underscore and what follows."""
    return clip.rpartition("_")[0] or clip


def clean_folder(folder: Path, out: Path) -> list[Skipped]:
    """Clean up ``<instrument>/<clip>.npy`` of a folder into files of the same names in another one.

    They are whole or not there. A file that is there already is replaced, or removed if nothing of its clip is kept.

    Args:
        folder: of raw detections; it stays as it is.
        out: folder to write.

    Returns:
        Clips that have no file in ``out``, and why.

    Raises:
        DataError: there are no detections, ``out`` lies in the folder, or the disk cannot be written.
    """
    if out.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{str(out)!r} lies in the folder of the raw detections; name one beside it.")
    files = sorted(path for path in folder.glob("*/*.npy") if path.is_file())
    if not files:
        raise DataError(f"{str(folder)!r} has no detections <instrument>/<clip>.npy; give the folder that has them.")
    skipped: list[Skipped] = []
    for file in files:
        instrument, target = file.parent.name, out / file.parent.name / file.name
        try:
            found = read_detections(file)
            rows = np.column_stack((found.frames, found.classes, found.scores, found.boxes))
            kept = clean_rows(rows, instrument, video_of(file.stem))
            if len(kept) == 0:
                raise DataError(f"None of its {len(rows)} detections is kept.")
        except DataError as error:
            skipped.append(Skipped(f"{instrument}/{file.stem}", str(error)))
            _write(target, None)
        else:
            _write(target, kept)
    return skipped


def _write(target: Path, rows: np.ndarray | None) -> None:
    """Write or, without rows, remove a file."""
    try:
        if rows is None:
            remove(target)
            return
        with replaced(target) as part, part.open("wb") as file:
            np.save(file, rows)
    except OSError as error:
        raise DataError(
            f"The detections {str(target)!r} cannot be written ({error.strerror}); free the disk or name another "
            "folder."
        ) from error
