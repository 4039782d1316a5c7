"""Every registered method passes the conformance checks; so do methods of other plugins that are installed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from avsep_zoo.registry import registry
from avsep_zoo.testing import ConformanceChecks

_SMALL = {name: f"{name}.mini" if "mini" in recipe.variants else name for name, recipe in registry().methods().items()}
_SAME_NETWORK = dict.fromkeys(("compile", "export"), "The network is that of another recipe here, which is checked.")
# recipes whose other variants have parts that the small one has not
_MORE = ("avsgs.asiw", "bimodal_sep.audiocaps", "davis.music", "iquery.music", "sound_of_pixels.music")
# settings that follow from the sizes of other parts, and what is done on purpose
_DECLARED: dict[str, dict[str, Any]] = {
    "avsgs.asiw": {"settings": {"objective": {"classifier_width": 4}}, "exempt": _SAME_NETWORK},
    "avsgs.mini": {"settings": {"objective": {"recognised": [8, 8]}}},
    "bimodal_sep.audiocaps": {"exempt": _SAME_NETWORK},
    "davis.mini": {"settings": {"separator": {"multipliers": [1]}}},  # fewer levels are compiled sooner
    "davis.music": {"exempt": _SAME_NETWORK},
    "davis_flow.mini": {"exempt": _SAME_NETWORK},
    "ial_cms.mini": {
        "settings": {"objective": {"recognised": 8, "independence": 0.01}},
        "largest_mask": float("inf"),  # ratio masks through a ReLU, as published
        "unreached": {"objective.critic.bias": "The critic's loss is a difference of scores, in which it cancels."},
    },
    "sound_of_pixels.music": {"exempt": _SAME_NETWORK},
    "iquery.music": {"exempt": {"compile": "The network is that of the small variant, with one more layer."}},
}

for _name in (*_SMALL.values(), *_MORE):
    _title = "Test" + "".join(word.capitalize() for word in _name.replace(".", "_").split("_"))
    globals()[_title] = type(_title, (ConformanceChecks,), {"recipe": _name, **_DECLARED.get(_name, {})})
del ConformanceChecks


def test_light_import() -> None:
    """The kit loads neither PyTorch nor pytest before it is used."""
    code = "import sys, avsep_zoo.testing; print(sorted({'torch', 'pytest', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_part_is_checked() -> None:
    """Every part of a model that a recipe has is checked in one of them, whatever it is a variant of."""
    recipes = {name: registry().method(name.partition(".")[0]) for name in (*_SMALL.values(), *_MORE)}
    used = {
        (slot, part.name)
        for name, recipe in recipes.items()
        for slot, part in recipe.parts(name.partition(".")[2] or None).items()
    }
    for recipe in registry().methods().values():
        for variant in recipe.variant_names:
            left = {(slot, part.name) for slot, part in recipe.parts(variant).items()} - used
            assert not left, f"{recipe.name}.{variant} has {sorted(left)}; add it to _MORE"
