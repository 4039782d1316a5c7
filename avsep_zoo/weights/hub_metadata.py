"""The keys of a card's front matter that the Hugging Face Hub reads, and what is wrong with them."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from avsep_zoo.weights.card_results import MEASURED, REPORTED
from avsep_zoo.weights.licences import entries
from avsep_zoo.weights.shown import shown

__all__ = ["check_metadata", "hub_licence"]

_LIBRARY, _TASK = "avsep-zoo", "audio-to-audio"
_KEYS = (
    "library_name", "pipeline_tag", "license", "license_name", "license_link", "tags", "metrics", "datasets",
    "language", "base_model", "base_model_relation", "model-index", "thumbnail", "new_version",
    "co2_eq_emissions", "avsep",
)  # fmt: skip
_EXAMPLES = {"tags": "sound-separation, audio-visual", "metrics": "sdr", "datasets": "org/name"}
_LICENCES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "artistic-2.0", "bigcode-openrail-m", "bigscience-bloom-rail-1.0",
    "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc",
    "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0",
    "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0",
    "creativeml-openrail-m", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2", "gfdl", "gpl",
    "gpl-2.0", "gpl-3.0", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl",
    "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail", "openrail++", "osl-3.0", "other", "pddl", "postgresql",
    "unknown", "unlicense", "wtfpl", "zlib",
}  # fmt: skip
"""https://huggingface.co/docs/hub/repositories-licenses, without those of language and image models."""


def check_metadata(front: Mapping[str, Any]) -> Iterator[str]:
    """Give what is wrong with the keys of a front matter beside ``avsep``, a sentence each."""
    for key in front:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key).lower(), _KEYS, n=1)
            yield f"The front matter has the key {shown(key)}, which the Hub does not know; " + (
                f"write {near[0]} or leave it out." if near else "leave it out."
            )
    for key, wanted in {"library_name": _LIBRARY, "pipeline_tag": _TASK}.items():
        if front.get(key) != wanted:
            yield f"{key} is {shown(front.get(key))}; write {key}: {wanted}."
    for key, example in _EXAMPLES.items():
        value = front.get(key)
        if key != "tags" and value is None:
            continue
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one.strip() for one in value):
            yield f"{key} is {shown(value)}; write a list of texts, as in {key}: [{example}]."
    yield from _check_licence(front)
    if "model-index" in front:
        found = list(_check_index(front["model-index"], front))
        yield from found or _check_by_client(front)


def hub_licence(licence: str) -> str:
    """The Hub's id for an SPDX id; ``other`` where it has none."""
    plain = re.sub(r"-only$|-or-later$|\+$", "", licence.strip().lower())
    return plain if plain in _LICENCES else "other"


def _check_licence(front: Mapping[str, Any]) -> Iterator[str]:
    licence, name = front.get("license"), front.get("license_name")
    weights = [entry for entry in entries(_manifest(front)) if entry.field == "weights"]
    fitting = {hub_licence(entry.licence) for entry in weights}
    if not isinstance(licence, str) or licence not in _LICENCES:
        near = hub_licence(licence) if isinstance(licence, str) else min(fitting)
        advice = "license: other with a license_name" if near == "other" else f"license: {near}"
        yield f"license is {shown(licence)}, which is no licence id of the Hub; write {advice}."
        return
    if licence == "other" and not (isinstance(name, str) and re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)):
        yield f"license is other and license_name {shown(name)}; write one in small letters, as in not-stated."
    if licence != "other" and name is not None:
        yield f"license is {licence} and license_name {shown(name)}; leave license_name out."
    if not isinstance(block := _manifest(front).get("licences"), Mapping) or "weights" not in block:
        return
    if licence not in (fitting if len(fitting) == 1 else fitting | {"other"}):
        yield (
            f"license is {licence} and avsep.licences.weights {', '.join(entry.licence for entry in weights)}; both "
            f"are that of the weights, write license: {min(fitting)} or correct the other."
        )
    elif not all(entry.stated for entry in weights) and name != "not-stated":
        yield f"The weights' licence is not stated and license_name {shown(name)}; write license_name: not-stated."


def _manifest(front: Mapping[str, Any]) -> Mapping[str, Any]:
    block = front.get("avsep")
    return block if isinstance(block, Mapping) else {}


def _check_index(index: Any, front: Mapping[str, Any]) -> Iterator[str]:
    """Give what is wrong with the model-index."""
    manifest = _manifest(front)
    if not isinstance(index, list) or len(index) != 1 or not isinstance(index[0], Mapping):
        yield f"model-index is {shown(index)}; write a list of one entry with name and results."
        return
    name, results = index[0].get("name"), index[0].get("results")
    if name != manifest.get("name"):
        yield f"model-index has the name {shown(name)} and the card {shown(manifest.get('name'))}; write the card's."
    if not isinstance(results, list) or not results:
        yield f"model-index has the results {shown(results)}; write a list of them, or leave model-index out."
        return
    for number, result in enumerate(results, 1):
        for problem in _check_result(result, manifest.get("sha256") is not None):
            yield f"Result {number} of the model-index {problem}."


def _check_result(result: Any, weights: bool) -> Iterator[str]:
    if not isinstance(result, Mapping):
        yield f"is {shown(result)}; write task, dataset, metrics and source"
        return
    for key, needed in {"task": ("type",), "dataset": ("type", "name"), "source": ("name", "url")}.items():
        value = result.get(key)
        lacking = [one for one in needed if not isinstance(value, Mapping) or not isinstance(value.get(one), str)]
        if lacking:
            yield f"has no {key}.{lacking[0]}, a text; write it"
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        yield f"has the metrics {shown(metrics)}; write a list of type, name and value"
        metrics = []
    for metric in metrics:
        kind, value = (metric.get("type"), metric.get("value")) if isinstance(metric, Mapping) else (None, None)
        if not isinstance(kind, str):
            yield f"has the metric {shown(metric)} without a type; write one, as in sdr"
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            yield f"has {kind} {shown(value)}; write a finite number, or leave the metric out"
    source = result.get("source")
    title = source.get("name") if isinstance(source, Mapping) else None
    if isinstance(title, str):
        yield from _check_source(title, weights)


def _check_source(title: str, weights: bool) -> Iterator[str]:
    kind, _, rest = title.partition(":")
    if kind not in (MEASURED, REPORTED) or not rest.strip():
        yield f"has the source {shown(title)}; write '{MEASURED}: COMMAND' or '{REPORTED}: PLACE'"
    elif kind == MEASURED and not weights:
        yield f"was {MEASURED} and the card has no weights; leave it out, or say which paper reports it"


def _check_by_client(front: Mapping[str, Any]) -> Iterator[str]:
    """What the Hub's own client says of a model-index that looks right."""
    from huggingface_hub import ModelCardData

    try:
        ModelCardData(**{"model-index": front["model-index"]})
    except Exception as error:  # it reads what it is given without a check
        yield f"model-index is refused by the Hub's client ({' '.join(str(error).split())}); correct it."
