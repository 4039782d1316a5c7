"""Run every golden case of a folder through the adapter that understands it."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avsep_zoo.errors import DataError
from avsep_zoo.parity.case import Case, load_case
from avsep_zoo.parity.compare import compare

__all__ = ["Adapter", "CaseResult", "run_cases"]

Adapter = Callable[[Case], Mapping[str, Any]]


@dataclass(frozen=True)
class CaseResult:
    """What came out of one case.

    Args:
        case: name of the case; the file name for a file that could not be read.
        method: the method it belongs to.
        adapter: the adapter it asks for.
        tier: ``network`` or ``protocol``.
        passed: whether every expected output is within its tolerance.
        output: the output with the largest ratio of error to tolerance; "" if there was none to compare.
        error: of that output.
        tolerance: of that output.
        reason: why the case failed, in words; "" if it passed.
        traceback: of the exception that ended it; "" if there was none.
    """

    case: str
    method: str
    adapter: str
    tier: str
    passed: bool
    output: str = ""
    error: float | None = None
    tolerance: float | None = None
    reason: str = ""
    traceback: str = ""


def run_cases(
    directory: Path,
    *,
    method: str | None = None,
    tier: str | None = None,
    adapters: Callable[[str, str], Adapter | None],
    progress: Callable[[CaseResult], None] | None = None,
) -> list[CaseResult]:
    """Run the golden cases below ``directory``, one after the other, in the order of their paths.

    Other JSON files are passed over. Nothing a case or an adapter does ends the run: it becomes a result that
    failed. A case that no adapter understands has failed too.

    Args:
        directory: searched with its sub-folders for ``*.json``.
        method: only cases of this method.
        tier: only cases of this tier.
        adapters: from the names of a method and an adapter to the adapter, or None if there is none.
        progress: called with each result.

    Raises:
        DataError: there is no such case.
    """
    results = []
    for case in _cases(directory):
        if isinstance(case, Case):
            if (method and case.method != method) or (tier and case.tier != tier):
                continue
            result = _run(case, adapters)
        else:
            result = case
        results.append(result)
        if progress:
            progress(result)
    if not results:
        wanted = " ".join(filter(None, [f"of method {method}" if method else "", f"of tier {tier}" if tier else ""]))
        raise DataError(f"There is no golden case {wanted or '(*.json)'} below {directory}: name another folder.")
    return results


def _cases(directory: Path) -> Iterator[Case | CaseResult]:
    for path in sorted(directory.rglob("*.json")):
        try:
            case = load_case(path)
        except (DataError, OSError) as error:
            yield CaseResult(path.name, "", "", "", passed=False, reason=str(error))
            continue
        if case is not None:
            yield case


def _run(case: Case, adapters: Callable[[str, str], Adapter | None]) -> CaseResult:
    def failed(reason: str, trace: str = "") -> CaseResult:
        return CaseResult(case.name, case.method, case.adapter, case.tier, passed=False, reason=reason, traceback=trace)

    try:
        adapter = adapters(case.method, case.adapter)
        if adapter is None:
            return failed(f"no installed plugin understands adapter {case.adapter!r} of method {case.method!r}")
        outputs = adapter(case)
        if not isinstance(outputs, Mapping):
            return failed(f"the adapter returned {type(outputs).__name__} instead of outputs by name")
        errors = compare(case, outputs)
    except Exception as error:
        return failed(f"{type(error).__name__}: {error}", traceback.format_exc())
    if not errors:
        return failed("the case expects no output")
    worst = max(errors, key=lambda error: error.ratio)
    off = [error for error in errors if not error.passed]
    reason = ""
    if off:
        reason = f"{worst.name} {worst.reason or 'is off'} ({len(off)} of {len(errors)} outputs fail)"
    return CaseResult(
        *(case.name, case.method, case.adapter, case.tier),
        passed=not off,
        output=worst.name,
        error=worst.error,
        tolerance=worst.tolerance,
        reason=reason,
    )
