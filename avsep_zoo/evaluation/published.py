"""Numbers that papers report under a protocol, each with the place where it was found.

Only what was found is here. Where a paper's own table could not be read, the place says who repeats the number. A
number without its data set, as in the bar chart of BiModalSep's README, belongs to no protocol and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["PUBLISHED", "Reported"]


@dataclass(frozen=True)
class Reported:
    """One published number.

    Args:
        metric: ``sdr``, ``sir`` or ``sar``, a mean in dB.
        value: in dB.
        method: whose number it is, and its setting.
        source: where it was found.
        sources: sounds per test mixture.
    """

    metric: str
    value: float
    method: str
    source: str
    sources: int = 2


def _rows(source: str, sources: int, rows: Mapping[str, tuple[float | None, ...]]) -> tuple[Reported, ...]:
    return tuple(
        Reported(metric, value, method, source, sources)
        for method, values in rows.items()
        for metric, value in zip(("sdr", "sir", "sar"), values, strict=False)
        if value is not None
    )


_IAL_CMS = "table for MUSIC, a picture in the README of github.com/ZhenkaiLin/IAL-CMS"
_IQUERY = f"{_IAL_CMS}; the tables of the iQuery paper were not read"

PUBLISHED: Mapping[str, tuple[Reported, ...]] = {
    "iquery.music": _rows(_IQUERY, 2, {"iQuery": (11.17, 15.84, 14.27)}),
    "ial_cms.music": (
        *_rows(
            _IAL_CMS,
            2,
            {
                "IAL-CMS, supervised": (12.26, 17.93, 15.40),
                "IAL-CMS, unsupervised": (10.22, 17.08, 12.82),
                "FCSN": (11.74, 16.23),
                "iQuery": (11.17, 15.84, 14.27),
                "SepFusion": (8.76, 16.65, 11.81),
                "Co-Separation": (7.38, 13.7, 10.8),
                "Sound of Pixels": (7.30, 11.9, 11.9),
                "MP-Net": (7.00, 10.39, 15.31),
            },
        ),
        *_rows(
            _IAL_CMS,
            3,
            {
                "IAL-CMS, supervised": (6.54, 11.31, 10.43),
                "IAL-CMS, unsupervised": (6.29, 10.73, 10.37),
                "FCSN": (6.30, 11.47),
                "MP-Net": (5.75, 5.37, 13.68),
                "Co-Separation": (3.94, 8.93),
                "Sound of Pixels": (3.65, 8.77, 8.48),
            },
        ),
    ),
    "avsgs.asiw": _rows(
        "wizwand.com, page of the Co-Separation paper, second hand; the tables of the AVSGS paper were not read",
        2,
        {"Co-Separation": (6.6,)},
    ),
}
