"""The errors a user can cause: one base class, caught once at the edge of the command line.

Every message is one sentence that says what was wrong, with which value, and what to do.

    AvsepError
    ├── MediaError        a file that cannot be read, decoded or written
    ├── CueError          a cue the method cannot use, or a cue that is missing
    ├── CompositionError  parts that do not fit together, or an unknown part
    ├── PluginError       a plugin that breaks the rules
    ├── WeightsError      weights or cards that are missing, wrong or tampered with
    └── DataError         a data set, index file or configuration that cannot be used

:class:`CueWarning` is no error: a cue is used, but not all of it. Nor is :class:`LicenceWarning`: weights are loaded
that may not be used for everything.
"""

from __future__ import annotations

__all__ = [
    "AvsepError",
    "CompositionError",
    "CueError",
    "CueWarning",
    "DataError",
    "LicenceWarning",
    "MediaError",
    "PluginError",
    "WeightsError",
]


class AvsepError(Exception):
    """Base of every error that names something the user can change."""


class MediaError(AvsepError):
    """A media file cannot be read, decoded or written."""


class CueError(AvsepError):
    """A cue cannot be used by the method, or a modality the method needs is missing."""


class CompositionError(AvsepError):
    """Parts do not fit together, or a name is unknown to the registry."""


class PluginError(AvsepError):
    """A plugin fails to import or registers something that breaks the contract."""


class WeightsError(AvsepError):
    """Weights or a weights card are missing, malformed or do not match their hash."""


class DataError(AvsepError):
    """A data set, an index file or a training configuration cannot be used."""


class CueWarning(UserWarning):
    """A cue is taken only partly, e.g. without a word that the method does not know."""


class LicenceWarning(UserWarning):
    """Weights are loaded whose card states no licence that permits commercial use."""
