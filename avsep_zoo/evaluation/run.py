"""A whole evaluation: contenders times lists of mixtures, with everything that is worth keeping on disk."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avsep_zoo import __version__
from avsep_zoo.data.clip import Clip
from avsep_zoo.data.examples import with_examples
from avsep_zoo.data.reader import Reader, open_data
from avsep_zoo.errors import AvsepError, DataError
from avsep_zoo.evaluation.contender import Contender, Setting
from avsep_zoo.evaluation.examples import write_examples
from avsep_zoo.evaluation.protocols import Protocol
from avsep_zoo.evaluation.report import write_report
from avsep_zoo.evaluation.results import ItemFile, fingerprint, folder_name, write_document
from avsep_zoo.evaluation.score import batch_means
from avsep_zoo.evaluation.scorer import BATCH, Scorer
from avsep_zoo.evaluation.statistics import summarise
from avsep_zoo.evaluation.workers import Task, Workers
from avsep_zoo.folder_lock import folder_lock
from avsep_zoo.generative.noise import Sampling
from avsep_zoo.generative.plan import describe_sampling, plan_sampling
from avsep_zoo.registry import registry

__all__ = ["evaluate"]

ALL_CUES = frozenset({"audio", "detections", "frames", "label", "text"})

Mixtures = list[tuple[Clip, ...]]
Progress = Callable[[str, str, int, int], None]


def evaluate(
    contenders: Sequence[Contender],
    data: Path,
    *,
    protocol: Protocol,
    dataset: str | None = None,
    lists: Sequence[str] = (),
    use: frozenset[str] = ALL_CUES,
    consistency: bool | None = None,
    seed: int = 0,
    steps: int | None = None,
    solver: str | None = None,
    limit: int | None = None,
    workers: int = 1,
    device: str = "cpu",
    out: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score contenders on lists of test mixtures.

    Args:
        contenders: models and baselines; see :func:`~avsep_zoo.evaluation.contender.find_contenders`.
        data: the data folder.
        protocol: what is done; see :func:`~avsep_zoo.evaluation.protocols.find_protocol`.
        dataset: reader; None is the first that knows the folder.
        lists: names of lists of mixtures; none means the protocol's, or else the first of the data.
        use: modalities of the cues that models are given.
        consistency: whether stems share the mixture out; None leaves that to the protocol.
        seed, steps, solver: of the generative ones among the models, as in
            :meth:`avsep_zoo.SeparationModel.separate`; every mixture sees the same noise.
        limit: score only the first mixtures of each list.
        workers: processes.
        device: of the models.
        out: folder for ``<model>/<list>.jsonl``, ``results.json``, ``report.html`` and ``audio``. Mixtures that an
            earlier, interrupted run scored there are not scored again.
        progress: called with contender, list, mixtures done, mixtures in all.

    Returns:
        The results document: plain JSON.

    Raises:
        AvsepError: the data, a list or a model cannot be used, ``out`` holds another evaluation, or not a single
            mixture has a score. A mixture that cannot be scored is among the ``skipped`` of its list.
    """
    _check_cues(contenders, use)
    plans, sampled = _plan_sampling(contenders, seed=seed, steps=steps, solver=solver)
    reader = open_data(data, dataset, protocol=protocol.loader, frame_rate=protocol.frame_rate)
    notes = _notes(protocol, reader)
    mixtures: dict[str, Mixtures] = {}
    left_out: dict[str, list[dict[str, str]]] = {}
    for name in dict.fromkeys(lists or [_default_list(protocol, reader, notes)]):
        before = len(reader.skipped)
        listed = reader.mixtures(name)
        mixtures[name] = with_examples(listed, [clip for clips in listed for clip in clips])
        left_out[name] = [asdict(skipped) for skipped in reader.skipped[before:]]
    shared = protocol.consistency if consistency is None else consistency
    first = next((contender for contender in contenders if contender.card is not None), None)
    settings = [Setting.of(protocol, contender if contender.card else first or contender) for contender in contenders]
    models = []
    with ExitStack() as stack:
        if out is not None:
            stack.enter_context(_claimed(out, data))
        files: list[dict[str, ItemFile]] = []
        for contender, setting, how in zip(contenders, settings, sampled, strict=True):  # before anything is computed
            files.append({})
            for name, listed in mixtures.items():
                path = None if out is None else out / folder_name(contender) / f"{name}.jsonl"
                depends = fingerprint(contender, protocol, setting, listed, use=use, consistency=shared, sampling=how)
                files[-1][name] = stack.enter_context(ItemFile(path, depends))
        for contender, setting, plan, how, kept in zip(contenders, settings, plans, sampled, files, strict=True):
            scorer = Scorer(contender, protocol, setting, use=use, consistency=shared, sampling=plan, device=device)
            entries = []
            with Workers(scorer, workers) as pool:
                for name, listed in mixtures.items():
                    _score_list(pool, contender.name, name, listed, kept[name], limit, progress)
                    entry = _entry(name, listed, kept[name], left_out[name], protocol, limit)
                    if out is not None and (contender.card or first is None):
                        folder = Path("audio") / folder_name(contender) / name
                        entry["audio"] = write_examples(pool, out, folder, entry["items"], _tasks(listed))
                    entries.append(entry)
            models.append(
                {
                    "name": contender.name,
                    "kind": contender.kind,
                    "sha256": contender.sha256,
                    "use": sorted(use & contender.reads),
                    "consistency": shared and contender.card is not None,
                    "sampling": how,
                    "lists": entries,
                }
            )
        results = _document(protocol, settings, data, notes, models)
        _check(results)
        if out is not None:
            write_document(results, out / "results.json")
            write_report(results, out, out / "report.html")
    return results


def _claimed(out: Path, data: Path) -> AbstractContextManager[None]:
    """Make the folder of the results and hold it.

    Raises:
        DataError: it is or lies in the data folder, is a file, or another process has it.
    """
    if out.resolve().is_relative_to(data.resolve()):
        raise DataError(f"The results would lie among the data in {str(data)!r}; give a folder beside it to -o.")
    if out.exists() and not out.is_dir():
        raise DataError(f"{str(out)!r} is a file; name a folder for the results.")
    out.mkdir(parents=True, exist_ok=True)
    return folder_lock(out)


def _check_cues(contenders: Sequence[Contender], use: frozenset[str]) -> None:
    for contender in contenders:
        if contender.card is not None and not use & contender.reads:
            raise DataError(
                f"The model {contender.name} reads {' and '.join(sorted(contender.reads))}, not "
                f"{' or '.join(sorted(use))}; give it other cues."
            )


def _plan_sampling(
    contenders: Sequence[Contender], *, seed: int, steps: int | None, solver: str | None
) -> tuple[list[Sampling | None], list[dict[str, Any] | None]]:
    """How each contender samples, and that as plain JSON; None for those that generate nothing.

    Raises:
        CompositionError: a generative one cannot sample like this, or there is none for the steps or the solver.
    """
    drivers = [contender.driver for contender in contenders]
    if all(driver is None for driver in drivers):
        plan_sampling(None, " and ".join(contender.name for contender in contenders), steps=steps, solver=solver)
    plans = [
        None if driver is None else plan_sampling(driver, contender.name, seed=seed, steps=steps, solver=solver)
        for contender, driver in zip(contenders, drivers, strict=True)
    ]
    return plans, [describe_sampling(driver, plan) for driver, plan in zip(drivers, plans, strict=True)]


def _notes(protocol: Protocol, reader: Reader) -> list[str]:
    if protocol.dataset is None:
        return []
    try:
        meant = isinstance(reader, registry().part("reader", protocol.dataset))
    except AvsepError:
        meant = False
    if meant:
        return []
    return [f"Protocol {protocol.name} is for {protocol.dataset} and the data is another set; its rules are applied."]


def _default_list(protocol: Protocol, reader: Reader, notes: list[str]) -> str:
    known = reader.mixture_lists()
    if not known:
        raise DataError(f"{str(reader.root)!r} has no list of test mixtures; add one, or give another data folder.")
    name = next((name for name in protocol.lists if name in known), known[0])
    if protocol.lists and name not in protocol.lists:
        notes.append(
            f"The data has none of the lists {', '.join(protocol.lists)} of {protocol.name}; {name} is scored."
        )
    return name


def _tasks(listed: Mixtures) -> list[Task]:
    """The batches of a list, with all that is in them wanted; they are the same however much is left to do."""
    starts = range(0, len(listed), BATCH)
    return [(listed[s : s + BATCH], tuple(range(min(BATCH, len(listed) - s))), s) for s in starts]


def _score_list(
    pool: Workers,
    who: str,
    name: str,
    listed: Mixtures,
    kept: ItemFile,
    limit: int | None,
    progress: Progress | None,
) -> None:
    """Score what is not kept from an earlier run; what was skipped then is tried again."""
    total = min(len(listed), limit or len(listed))
    finished = {position for position, record in kept.rows.items() if "skipped" not in record}
    tasks: list[Task] = []
    for batch, positions, start in _tasks(listed):
        wanted = tuple(p for p in positions if start + p < total and start + p not in finished)
        if wanted:
            tasks.append((batch, wanted, start))
    done = total - sum(len(wanted) for _, wanted, _ in tasks)
    if progress:
        progress(who, name, done, total)
    for (_, _, start), scored in zip(tasks, pool.score(tasks), strict=True):
        for p, scores in scored:
            position = start + p
            kept.append(position, _record(name, position, listed[position], scores))
        done += len(scored)
        if progress:
            progress(who, name, done, total)


def _record(name: str, position: int, clips: Sequence[Clip], scores: dict[str, list[float]] | str) -> dict[str, Any]:
    labels = [clip.label or list(clip.labels) or clip.text for clip in clips]
    record: dict[str, Any] = {
        "id": f"{name}-{position + 1:04d}",
        "clips": [clip.id for clip in clips],
        "labels": labels,
    }
    if isinstance(scores, str):
        return record | {"skipped": scores}
    plain = {metric: [v if math.isfinite(v) else None for v in values] for metric, values in scores.items()}
    return record | plain


def _entry(
    name: str,
    listed: Mixtures,
    kept: ItemFile,
    left_out: Sequence[dict[str, str]],
    protocol: Protocol,
    limit: int | None,
) -> dict[str, Any]:
    """What is known of a contender on a list, in the order of the list."""
    records = [kept.rows[p] for p in sorted(kept.rows) if limit is None or p < limit]
    items = [record for record in records if "skipped" not in record]
    skipped = [
        {"where": f"{record['id']} ({', '.join(record['clips'])})", "why": record["skipped"]}
        for record in records
        if "skipped" in record
    ]
    sources = {len(clips) for clips in listed}
    entry: dict[str, Any] = {"name": name, "mixtures": len(items), "skipped": [*left_out, *skipped]}
    entry |= summarise(items)
    if protocol.batch and records:
        rows = [None if "skipped" in record else record for record in records]
        entry["published_mean"] = _published_mean(rows, protocol)
    entry["reported"] = [
        {"metric": r.metric, "value": r.value, "method": r.method, "source": r.source}
        for r in protocol.reported
        if sources == {r.sources}
    ]
    entry["items"] = items
    return entry


def _published_mean(rows: Sequence[Mapping[str, Any] | None], protocol: Protocol) -> dict[str, Any] | None:
    assert protocol.batch is not None
    if protocol.drop_last and len(rows) < protocol.batch:
        return None
    rest = "an incomplete last one left out" if protocol.drop_last else "a smaller last one weighs the same"
    name = f"mean over batches of {protocol.batch} mixtures, {rest}"
    return {"name": name, **batch_means(rows, protocol.batch, drop_last=protocol.drop_last)}


def _document(
    protocol: Protocol,
    settings: Sequence[Setting],
    data: Path,
    notes: list[str],
    models: list[dict[str, Any]],
) -> dict[str, Any]:
    cuts = {(setting.rate, setting.length / setting.rate) for setting in settings}
    rate, seconds = cuts.pop() if len(cuts) == 1 else (protocol.rate, protocol.seconds)
    return {
        "format": 1,
        "protocol": {
            "name": protocol.name,
            "summary": protocol.summary,
            "rate": rate,
            "seconds": seconds,
            "source": protocol.source,
        },
        "data": str(data),
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {"avsep-zoo": __version__, **{name: version(name) for name in ("torch", "numpy", "scipy")}},
        "notes": notes,
        "models": models,
    }


def _check(results: Mapping[str, Any]) -> None:
    """Raise DataError if nothing has a score."""
    entries = [(model["name"], entry) for model in results["models"] for entry in model["lists"]]
    if any(entry["mixtures"] for _, entry in entries):
        return
    name, entry = entries[0]
    raise DataError(
        f"None of the {len(entry['skipped'])} mixtures of {entry['name']} can be scored with {name}; the first one: "
        f"{entry['skipped'][0]['where']}: {entry['skipped'][0]['why']}"
    )
