"""``avsep parity``: golden numbers of official code against the installed plugins."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from avsep_zoo.cli.terminal import busy, console, print_json, print_table
from avsep_zoo.errors import DataError

if TYPE_CHECKING:
    from avsep_zoo.parity.run import CaseResult

__all__ = ["parity"]


def parity(
    directory: Annotated[Path, typer.Argument(help="Folder that is searched for golden cases (*.json).")],
    method: Annotated[str | None, typer.Option(help="Only cases of this method.")] = None,
    tier: Annotated[
        Literal["network", "protocol"] | None,
        typer.Option(help="Only networks, losses and front ends, or only data rules and metrics."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print the tracebacks of failures.")] = False,
) -> None:
    """Compare the installed plugins with golden numbers of official code.

    Exit code 1 if a case fails or no plugin understands it, 2 if there is no case.
    """
    from avsep_zoo.parity.run import run_cases
    from avsep_zoo.registry import registry

    try:
        with busy("Comparing"):
            results = run_cases(directory, method=method, tier=tier, adapters=registry().adapter)
    except DataError as error:
        console(stderr=True).print(str(error), style="red", soft_wrap=True)
        raise typer.Exit(2) from None
    passed = sum(result.passed for result in results)
    if as_json:
        cases = [_document(result) for result in results]
        print_json({"passed": passed, "failed": len(results) - passed, "cases": cases})
    else:
        headers = ("case", "adapter", "worst output", "error", "tolerance", "result")
        print_table(headers, map(_row, results), numbers=(3, 4))
        for result in results:
            if not result.passed:
                console().print(f"{result.method} {result.case}: {result.reason}", soft_wrap=True)
        console().print(f"{passed} of {len(results)} cases pass")
    if verbose:
        for result in results:
            if result.traceback:
                console(stderr=True).print(f"{result.method} {result.case}\n{result.traceback}", soft_wrap=True)
    raise typer.Exit(int(passed < len(results)))


def _row(result: CaseResult) -> tuple[str, ...]:
    numbers = ("-" if value is None else f"{value:.2g}" for value in (result.error, result.tolerance))
    verdict = "pass" if result.passed else "FAIL"
    return (f"{result.method} {result.case}", result.adapter, result.output or "-", *numbers, verdict)


def _document(result: CaseResult) -> dict[str, object]:
    document = asdict(result)
    if result.error is not None and not math.isfinite(result.error):
        document["error"] = None  # JSON has no infinity; the reason says what is wrong
    return document
