"""What the licences in a card permit: of the code, of the weights, and of what they were trained on.

The block ``licences`` of a card has these three fields. Each is an SPDX id, ``not stated``, or a list of entries::

    licences:
      code: Apache-2.0
      weights: CC-BY-NC-4.0
      training_data:
      - {of: Noto Color Emoji, licence: OFL-1.1}
      - {of: my recordings, licence: LicenseRef-mine, terms: free for any use, commercial: true}

A licence outside the SPDX list is called ``LicenseRef-NAME``, and its ``terms`` say in a sentence what it permits.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from avsep_zoo.errors import LicenceWarning
from avsep_zoo.weights.cards import Card

__all__ = ["FIELDS", "NOT_STATED", "Licence", "commercial", "entries", "inherited", "notice", "permits", "remind"]

FIELDS = ("code", "weights", "training_data")
NOT_STATED = "not stated"
_PERMITTING = {
    "0BSD", "AFL-3.0", "Apache-1.1", "Apache-2.0", "Artistic-2.0", "Beerware", "BlueOak-1.0.0", "BSD-1-Clause",
    "BSD-2-Clause", "BSD-2-Clause-Patent", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0", "C-UDA-1.0", "CC-PDDC",
    "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "ECL-2.0", "EPL-1.0", "EPL-2.0",
    "etalab-2.0", "EUPL-1.1", "EUPL-1.2", "HPND", "ISC", "MIT", "MIT-0", "MPL-1.1", "MPL-2.0", "MS-PL", "NCSA",
    "ODbL-1.0", "ODC-By-1.0", "OFL-1.0", "OFL-1.1", "OSL-3.0", "PDDL-1.0", "PostgreSQL", "PSF-2.0", "Python-2.0",
    "Unlicense", "UPL-1.0", "WTFPL", "Zlib",
}  # fmt: skip
_FAMILIES = r"cc-by(-sa)?-\d\.\d(-[a-z]+)?|(l|a)?gpl-\d\.\d(-only|-or-later|\+)?|gfdl-\d\.\d(-only|-or-later)?"
"""SPDX ids that permit commercial use, some on conditions: to name the source, to pass on under the same licence, to
publish changes. Those without derivatives (-ND) are not among them: weights are derived from what they were made of."""
_KNOWN = re.compile("|".join([_FAMILIES, *(re.escape(name) for name in sorted(_PERMITTING))]), re.IGNORECASE)
_FORBIDDING = re.compile(r"(?i)(^|[^a-z])(nc|non-?commercial|research)([^a-z]|$)")
_told: set[tuple[str, str | None]] = set()


@dataclass(frozen=True)
class Licence:
    """What one thing is licensed under.

    Args:
        field: of :data:`FIELDS`.
        of: what it is, empty where the field is not a list.
        licence: SPDX id, ``LicenseRef-NAME`` or ``not stated``.
        terms: what it permits, in words.
        commercial: whether the terms permit commercial use; None where the card does not say.
    """

    field: str
    of: str = ""
    licence: str = NOT_STATED
    terms: str = ""
    commercial: bool | None = None

    @property
    def stated(self) -> bool:
        """Whether there is one."""
        return self.licence.strip().lower() not in ("", NOT_STATED)

    @property
    def permits(self) -> bool:
        """Whether commercial use is permitted for sure.

        A known licence decides, unless the card says ``commercial: false``; of another one its terms, if the card says
        ``commercial: true``. One that is non-commercial by its name never permits it.
        """
        if self.commercial is False or _FORBIDDING.search(self.licence):
            return False
        return permits(self.licence) or bool(self.commercial and self.terms.strip())

    def __str__(self) -> str:
        terms = f" ({self.terms})" if self.terms else ""
        return f"{self.of}: {self.licence}{terms}" if self.of else f"{self.licence}{terms}"


def permits(licence: str) -> bool:
    """Whether an SPDX id is known to permit commercial use."""
    return _KNOWN.fullmatch(licence.strip()) is not None


def entries(manifest: Mapping[str, Any]) -> list[Licence]:
    """All licences in a card's manifest, by field; a field that is missing or of no known form is not stated."""
    licences = manifest.get("licences")
    stated = licences if isinstance(licences, Mapping) else {}
    return [entry for field in FIELDS for entry in _field(field, stated.get(field))]


def _field(field: str, value: Any) -> Iterator[Licence]:
    if isinstance(value, str):
        yield Licence(field, licence=value)
    elif isinstance(value, list) and value:
        for entry in value:
            one = entry if isinstance(entry, Mapping) else {}
            permitted = one.get("commercial")
            yield Licence(
                field,
                str(one.get("of") or entry),
                str(one.get("licence") or NOT_STATED),
                str(one.get("terms") or ""),
                permitted if isinstance(permitted, bool) else None,
            )
    else:
        yield Licence(field)


def commercial(card: Card) -> bool:
    """Whether code, weights and training data of a card all permit commercial use, as far as the card says."""
    return all(entry.permits for entry in entries(card.manifest))


def notice(card: Card) -> str | None:
    """One sentence about weights whose card does not permit commercial use, or None.

    A run of the user's own needs none: a card that was never published and states no licences. Nor does it need one
    for what it was trained on beside the weights it started from, while nobody else has it.
    """
    if card.hub is None and not card.manifest.get("licences"):
        return None
    own = card.hub is None and "started_from" in card.manifest
    wanting: dict[str, list[str]] = {}
    for entry in entries(card.manifest):
        if not entry.permits and not (own and entry.field == "training_data" and not entry.stated):
            found = f"{entry.of}: {entry.licence}" if entry.of else entry.licence
            wanting.setdefault(entry.field.replace("_", " "), []).append(found)
    if not wanting:
        return None
    fields = (f"{field} ({', '.join(dict.fromkeys(found))})" for field, found in wanting.items())
    return (
        f"The card of {card.name} states no licence that permits commercial use for its {' and '.join(fields)}; ask "
        "whoever made them what you may do with it."
    )


def remind(card: Card) -> None:
    """Warn with the :func:`notice` of a card, once per process and card."""
    told = (card.name, card.sha256)
    if told not in _told and (sentence := notice(card)) is not None:
        _told.add(told)
        warnings.warn(sentence, LicenceWarning, stacklevel=3)


def inherited(card: Card, data: str) -> dict[str, Any] | None:
    """The block ``licences`` of weights that were trained on, starting from a card's; None where there is none.

    Args:
        card: they start from.
        data: what they were trained on, whose licence the user has to state before publishing.
    """
    if card.hub is None and not card.manifest.get("licences"):
        return None
    block: dict[str, Any] = dict.fromkeys(FIELDS, NOT_STATED) | dict(card.manifest.get("licences") or {})
    before = block["training_data"]
    if not isinstance(before, list):
        before = [{"of": f"what {card.name} was trained on", "licence": before}]
    added = {"of": data, "licence": NOT_STATED}
    return {**block, "training_data": [*before, *([] if added in before else [added])]}
