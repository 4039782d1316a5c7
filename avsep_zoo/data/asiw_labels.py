"""What ASIW says about the objects that sound in a video: their classes, and the list of them beside its boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avsep_zoo.data.index_file import frame_count, read_rows
from avsep_zoo.errors import DataError

__all__ = ["DETECTOR_CLASSES", "LABELS", "LABELS_FILE", "SoundingObject", "read_sounding_objects"]

DETECTOR_CLASSES: dict[str, tuple[int, ...]] = {
    "baby": (706, 366, 952),
    "bell": (817,),
    "bird": (180, 999, 341, 351),
    "camera": (739,),
    "clock": (118, 1392, 294, 6),
    "dog": (117, 337),
    "toilet/drain": (543, 14, 84, 384, 443),
    "horse": (42, 186),
    "person": (50, 90, 1510, 540, 226, 509, 139, 753),
    "sheep/goat/chicken": (161, 711, 612, 1019),
    "telephone": (581,),
    "train": (70, 814, 625, 1181, 898, 1447, 566),
    "vehicle": (663, 52, 685, 155, 838),
    "water": (183, 733, 475),
}
"""Class -> class ids of the detector (a vocabulary of Visual Genome), in the order of the released table."""

LABELS = tuple(DETECTOR_CLASSES)
"""Label id -> class. That the id is the place in the table is the natural reading; the table does not say it."""

LABELS_FILE = "Vision_Text_Labels.csv"
"""In the folder of a video; no header, a sounding object per row: label id, detector class, frame, box."""


@dataclass(frozen=True)
class SoundingObject:
    """A row of the labels file: label id, class id of the detector, frame and box in it, all from 0."""

    label: int
    detector_class: int
    frame: int
    box: int

    @property
    def name(self) -> str:
        """The class that the label id stands for."""
        return LABELS[self.label]


def read_sounding_objects(folder: Path) -> list[SoundingObject]:
    """Read the sounding objects of a video, in the order of the file.

    Raises:
        DataError: the file is missing or empty, or a row is wrong.
    """
    broken: list[str] = []
    objects = []
    for where, cells in read_rows(folder / LABELS_FILE, lambda where, why: broken.append(f"{where}: {why}")):
        if len(cells) != 4:
            raise DataError(f"{where} of {folder.name!r} has {len(cells)} columns; give label,class,frame,box.")
        try:
            found = SoundingObject(*(frame_count(cell) for cell in cells))
        except DataError as error:
            raise DataError(
                f"{where} of {folder.name!r} has {','.join(cells)[:40]!r}; give whole numbers: label,class,frame,box."
            ) from error
        if found.label >= len(LABELS):
            raise DataError(f"{where} of {folder.name!r} has the label {found.label}; labels are 0 to 13.")
        objects.append(found)
    if broken or not objects:
        why = broken[0] if broken else "it is empty"
        raise DataError(f"The labels {str(folder / LABELS_FILE)!r} cannot be used: {why}; replace the file.")
    return objects
