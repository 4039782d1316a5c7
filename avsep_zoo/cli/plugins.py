"""``avsep plugins``: what became of every plugin."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import console, print_json, print_table
from avsep_zoo.plugin_guard import guarded, patience, plugin_seconds
from avsep_zoo.plugins import PluginReport, plugin_reports
from avsep_zoo.registry import PART_KINDS, registry

__all__ = ["plugins"]


def plugins(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show targets, every part, and tracebacks.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Import everything they name, and look whether methods' parts fit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the reports as JSON.")] = False,
) -> None:
    """List plugins, what they registered, what failed.

    Installed ones are first tried in processes of their own, each with a time limit (AVSEP_ZOO_PLUGIN_SECONDS).
    Exit code 1 if one failed or is incomplete.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # failures are what this command prints
        reports = plugin_reports(try_first=True)
        if check:
            reports = [_checked(report) for report in reports]
    failed = any(report.status in ("failed", "incomplete") for report in reports)
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
            _by_kind(r.registered) or ("" if r.error else "nothing"),
        )
        for r in reports
    ]
    print_table(("Plugin", "Status", "Origin", "Distribution", "Registered"), rows)
    for report in reports:
        if report.error:
            screen.print(f"\n{report.name}: {report.error}", style="red", soft_wrap=True)
        for problem in report.problems:
            screen.print(f"\n{report.name}: {problem}", style="red", soft_wrap=True)
        for remark in report.remarks:
            screen.print(f"\n{report.name}: {remark}", style="yellow", soft_wrap=True)
        if verbose:
            screen.print(f"\n{report.name} is {report.value or 'unknown'}", soft_wrap=True)
            if report.traceback:
                screen.print(report.traceback.rstrip(), soft_wrap=True)
    if verbose:
        screen.print()
        parts = [
            (_words(e.kind), e.name, e.plugin, str(e.summary)) for kind in PART_KINDS for e in registry().list(kind)
        ]
        print_table(("Part", "Name", "Plugin", "What it is"), parts)
    if any(report.traceback for report in reports) and not verbose:
        screen.print("\n'avsep plugins --verbose' shows the tracebacks.")
    raise typer.Exit(int(failed))


def _checked(report: PluginReport) -> PluginReport:
    """The report, with what is wrong with the targets of the plugin and with its methods."""
    if report.status not in ("ok", "incomplete"):
        return report
    import torch  # noqa: F401  (no plugin is to blame for the time that takes)

    from avsep_zoo.plugin_check import check_targets

    seconds = patience(report.origin, plugin_seconds())
    with guarded(report.name, report.distribution or report.origin, seconds=seconds):
        problems = (*report.problems, *check_targets(registry(), report.name))
    return replace(report, status="incomplete" if problems else report.status, problems=problems)


def _by_kind(registered: Sequence[str]) -> str:
    """``kind name`` of each as ``kind name, name; kind name``."""
    kinds: dict[str, list[str]] = {}
    for entry in registered:
        kind, _, name = entry.partition(" ")
        kinds.setdefault(kind, []).append(name)
    return "; ".join(f"{_words(kind)} {', '.join(names)}" for kind, names in kinds.items())


def _words(kind: str) -> str:
    return kind.replace("_", " ")
