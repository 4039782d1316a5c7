"""How a check says no: one paragraph with what was seen, what the contract says, and the usual cause."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["NotApplicable", "Rule"]


class NotApplicable(Exception):
    """A check that cannot be made of this method or on this computer; the text says why."""


class Rule:
    """One rule of a contract.

    Args:
        contract: what it says and why, as sentences.
        cause: what usually breaks it, as sentences.
    """

    def __init__(self, contract: str, cause: str) -> None:
        self.contract, self.cause = contract, cause

    def broken(self, seen: str) -> AssertionError:
        """The failure for what was ``seen``, a sentence."""
        return AssertionError(f"{seen} The contract: {self.contract} The usual cause: {self.cause}")

    def need(self, kept: object, seen: str) -> None:
        """Raise the failure unless the rule is ``kept``."""
        if not kept:
            raise self.broken(seen)

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Turn any exception of the block, which does ``what``, into a failure."""
        try:
            yield
        except (AssertionError, NotApplicable):
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:500]
            raise self.broken(f"{what} raised {type(error).__name__}: {text.rstrip('.')}.") from error
