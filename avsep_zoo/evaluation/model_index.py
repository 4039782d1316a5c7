"""Measured numbers in the ``model-index`` of a card, where the Hugging Face Hub shows them.

One entry per mixture list. The protocol is the ``config`` of its data set: the Hub tells entries apart by task,
data set, config and split.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import yaml

from avsep_zoo.errors import WeightsError
from avsep_zoo.evaluation.report import METRIC_NAMES
from avsep_zoo.replaced import replaced
from avsep_zoo.weights.cards import Card, read_card

__all__ = ["write_results"]

HOMEPAGE = "https://github.com/avsep-zoo/avsep-zoo"  # the Hub refuses a source that has a name and no address
_KEY = "model-index"
_WRITTEN = ("sdr", "sir", "sar", "si_sdr", "sdr_improvement", "si_sdr_improvement")
_NUMBERS = {1: "one source", 2: "two sources", 3: "three sources", 4: "four sources"}
_FRONT = re.compile(r"---\r?\n(.*?\n)(?=---\r?\n)", re.DOTALL)


def write_results(card: Path, results: Mapping[str, Any], command: str) -> None:
    """Write what was measured of a card's model into the ``model-index`` of its front matter.

    Entries of the same data set, list and protocol are replaced, and those of the same data set and list that name no
    protocol. Others stay, but for the address that the Hub wants of a source with a name. Outside the
    ``model-index`` the README stays as it is, byte for byte; it is replaced as a whole or not at all.

    Args:
        card: the folder of the card, or its README.md.
        results: the results document, format 1; of its models the one with the card's weights counts.
        command: what was run, for the entries' source.

    Raises:
        WeightsError: the card or its ``model-index`` cannot be used, or the results are not of its weights.
    """
    folder = card.parent if card.name == "README.md" else card
    known = read_card(folder)
    entries = _entries(known, results, command)
    readme = folder / "README.md"
    text = readme.read_bytes().decode("utf-8")
    match = _FRONT.match(text)
    if match is None:
        raise WeightsError(f"The front matter of {str(readme)!r} has unusual line ends; save it with LF.")
    front = match.group(1)
    start, stop = _place(front, readme)
    index = _merged(known.front.get(_KEY), known.name, entries, readme)
    block = yaml.dump({_KEY: index}, Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
    block = block.replace("\n", "\r\n" if "\r\n" in front else "\n")
    changed = front[:start] + block + front[stop:]
    if _meaning(changed) != repr({**known.front, _KEY: index}):
        raise WeightsError(
            f"The {_KEY} of {str(readme)!r} cannot be replaced alone (an anchor ties it to other keys, or it is "
            "there twice); write it plainly."
        )
    with replaced(readme) as part:
        part.write_bytes((text[: match.start(1)] + changed + text[match.end(1) :]).encode("utf-8"))


def _entries(card: Card, results: Mapping[str, Any], command: str) -> list[dict[str, Any]]:
    """One entry of the model-index per list on which the card's model has a score."""
    models = [m for m in results["models"] if m["kind"] == "model"]
    weights = card.manifest["sha256"]
    model = next((m for m in models if m.get("sha256") == weights), None)
    if model is None:
        measured = ", ".join(f"{m['name']} ({str(m.get('sha256'))[:12]})" for m in models) or "no model"
        raise WeightsError(
            f"The results are of {measured} and the card {card.name} has weights {weights[:12]}; evaluate the card."
        )
    protocol = results["protocol"]
    data = PurePath(str(results["data"])).name or "data"
    settings = {"rate": protocol.get("rate"), "seconds": protocol.get("seconds")}
    settings |= {"cues": list(model.get("use") or ()), "consistency": model.get("consistency")}
    settings |= model.get("sampling") or {}
    entries = []
    for scored in model["lists"]:
        metrics = [
            {"type": metric, "name": METRIC_NAMES[metric], "value": round(value, 2)}
            for metric in _WRITTEN
            if (value := (scored["mean"].get(metric) or {}).get("mean")) is not None and math.isfinite(value)
        ]
        if not metrics:
            continue
        sources = max((len(item["sdr"]) for item in scored["items"]), default=2)
        separation = f"separation of {_NUMBERS.get(sources, f'{sources} sources')}"
        entries.append(
            {
                "task": {"type": "audio-to-audio", "name": separation},
                "dataset": {
                    "type": re.sub(r"[^a-z0-9._-]+", "-", data.lower()).strip("-.") or "data",
                    "name": f"{data}, {scored['name']}, protocol {protocol['name']}",
                    "config": protocol["name"],
                    "split": scored["name"],
                    "args": {
                        **{key: value for key, value in settings.items() if value is not None},
                        "mixtures": scored["mixtures"],
                    },
                },
                "metrics": metrics,
                "source": {"name": f"measured here: {command}", "url": HOMEPAGE},
            }
        )
    return entries


def _merged(index: Any, name: str, entries: list[dict[str, Any]], readme: Path) -> list[Any]:
    """The model-index with ``entries``, each in the place of the one it replaces or at the end."""

    def place(entry: Any) -> tuple[Any, ...]:
        return tuple(entry["dataset"].get(field) for field in ("type", "split"))

    fresh = {place(entry): entry for entry in entries}
    measured = {place(entry): (entry["dataset"]["config"], None) for entry in entries}
    kept: list[Any] = []
    try:
        index = list(index or [])
        model: Any = next((m for m in index if m["name"] == name), index[0] if index else {"name": name, "results": []})
        for entry in model["results"] or []:
            where = place(entry)
            if entry["dataset"].get("config") not in measured.get(where, ()):
                kept.append(_with_address(entry))
            elif where in fresh:
                kept.append(fresh.pop(where))
    except (LookupError, TypeError, AttributeError) as error:
        raise WeightsError(f"The {_KEY} of {str(readme)!r} has another form than the Hub's; correct it.") from error
    merged = {**model, "results": [*kept, *fresh.values()]}
    return [merged if m is model else m for m in index] or [merged]


def _with_address(entry: Any) -> Any:
    source = entry.get("source") or {}
    if not source.get("name") or source.get("url"):
        return entry
    return {**entry, "source": {**source, "url": HOMEPAGE}}


def _place(front: str, readme: Path) -> tuple[int, int]:
    """Where the model-index of a front matter begins and ends, in characters; both its end if there is none."""
    root = yaml.compose(front, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode) or root.flow_style:
        raise WeightsError(f"The front matter of {str(readme)!r} is one line of braces; write one key per line.")
    starts = [key.start_mark.index for key, _ in root.value]
    places = [k for k, (key, _) in enumerate(root.value) if key.value == _KEY]
    if not places:
        return len(front), len(front)
    start, stop = starts[places[0]], [*starts, len(front)][places[0] + 1]
    return start, start + len(_without_comments(front[start:stop]))


def _without_comments(block: str) -> str:
    """Leave out what belongs to the next key: blank lines and comments in the first column at the end."""
    lines = block.splitlines(keepends=True)
    while len(lines) > 1 and (not lines[-1].strip() or lines[-1].startswith("#")):
        lines.pop()
    return "".join(lines)


def _meaning(front: str) -> str:
    """The content of a front matter in its order, as text: there nan equals nan."""
    try:
        return repr(yaml.safe_load(front))
    except yaml.YAMLError:
        return ""


class _Plain(yaml.SafeDumper):
    """Writes what occurs twice twice, not as an alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
