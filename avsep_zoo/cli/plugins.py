"""``avsep plugins``: what became of every plugin."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.plugins import plugin_reports

__all__ = ["plugins"]


def plugins(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show targets and tracebacks.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """List plugins, what they registered, what failed.

    Exit code 1 if one failed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failures are what this command prints
        reports = plugin_reports()
    failed = any(report.status == "failed" for report in reports)
    if as_json:
        print_json([asdict(report) for report in reports])
        raise typer.Exit(int(failed))
    screen = console()
    rows = [
        (
            r.name,
            r.status,
            r.origin,
            r.distribution,
            ", ".join(r.registered) or ("" if r.error else "nothing"),
        )
        for r in reports
    ]
    print_table(("Plugin", "Status", "Origin", "Distribution", "Registered"), rows)
    for report in reports:
        if report.error:
            screen.print(f"\n{report.name}: {report.error}", style="red", soft_wrap=True)
        if verbose:
            screen.print(f"\n{report.name} is {report.value or 'unknown'}", soft_wrap=True)
            if report.traceback:
                screen.print(report.traceback.rstrip(), soft_wrap=True)
    if failed and not verbose:
        screen.print("\n'avsep plugins --verbose' shows the tracebacks.")
    raise typer.Exit(int(failed))
