"""torch.hub, in processes of their own: a copy of this checkout, nothing of ours on the path, no network."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import avsep_zoo
from avsep_zoo.model import SeparationModel
from avsep_zoo.registry import registry
from avsep_zoo.testing.loopback_hub import LoopbackHub
from avsep_zoo.weights.cards import Card, write_card

ROOT = Path(avsep_zoo.__file__).parents[1]

LOCAL = """
import functools, json, pathlib, sys
import plugins, tests                                  # the user's own
import torch

def attempt(entry="iquery", **arguments):
    try:
        return torch.hub.load(CHECKOUT, entry, source="local", **arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

def main():
    said = {}
    before = list(sys.path)
    sys.modules["pluggy"] = None                       # what a missing package looks like to Python
    said["missing"] = attempt()
    del sys.modules["pluggy"]

    model = attempt(trust_repo=True)
    said["default"] = [type(model).__name__, model.name, model.training]
    added = [path for path in sys.path if path not in before]
    said["path"] = added if [path for path in sys.path if path in before] == before else sys.path
    said["user"] = [plugins.MINE, tests.MINE, sys.modules["plugins"] is plugins]

    import avsep_zoo
    from avsep_zoo.evaluation import bss_eval          # not imported yet
    import avsep_iquery.classes                        # of a plugin
    said["late"] = bss_eval.__module__

    mini = attempt(variant="mini", pretrained=False)
    said["untrained"] = [mini.name, len(mini.classes) > 3]
    said["graph"] = attempt("avsgs", variant="mini", weights=None).name
    said["attention"] = attempt("ial_cms", variant="mini", weights=None).name
    said["label"] = attempt("film_unet", variant="mini", weights=None).name
    said["pixels"] = attempt("sound_of_pixels", variant="mini", weights=None).name
    said["words"] = attempt("bimodal_sep", variant="mini", weights=None).name
    made = [attempt(name, variant="mini", weights=None) for name in ("davis", "davis_flow")]
    said["generative"] = [[model.name, type(model.driver).__name__] for model in made]
    said["named"] = attempt(weights="iquery.mini").name
    said["pretrained"] = attempt(pretrained=True).name
    said["composed"] = attempt(
        "compose", encoder=model.encoder, conditioner=model.conditioner, separator=model.separator
    ).name
    said["errors"] = [
        attempt(variant="music"),
        attempt(variant="mimi", weights=None),
        attempt(pretrained=True, weights="iquery.mini"),
        attempt("iqury"),
        attempt("ial_cms"),
    ]
    cues = [[avsep_zoo.Cue(label="violin"), avsep_zoo.Cue(label="flute")]]
    loader = torch.utils.data.DataLoader(
        cues,
        batch_size=None,
        num_workers=1,
        multiprocessing_context="spawn",
        collate_fn=functools.partial(model.encoder.prepare, video=None, time=0.0),
    )
    said["spawned"] = next(iter(loader)).values["label"].tolist()
    print("SAID", json.dumps(said))

if __name__ == "__main__":
    main()
"""

GITHUB = """
import inspect, json
import torch

REPO = "someone/avsep-zoo:main"
names = torch.hub.list(REPO, trust_repo=True, verbose=False)
docs = {name: torch.hub.help(REPO, name, trust_repo=True) for name in names}
model = torch.hub.load(REPO, "iquery", trust_repo=True, verbose=False)
print("SAID", json.dumps({"names": names, "docs": docs, "model": model.name}))
"""

FROM_HUB = """
import json
import torch

model = torch.hub.load(CHECKOUT, "iquery", source="local", weights=ADDRESS)
from avsep_zoo.load import find_card
print("SAID", json.dumps({"model": model.name, "sha256": find_card(ADDRESS).sha256}))
"""

ALONE = """
import importlib.util, json, sys, warnings
from pathlib import Path

sys.path = [path for path in sys.path if not (Path(path) / "avsep_zoo").is_dir()]  # nothing of ours is installed

def hubconf():
    spec = importlib.util.spec_from_file_location("hubconf.py", f"{CHECKOUT}/hubconf.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

module = hubconf()
said = {"imported": [n for n in sys.modules if n.startswith("avsep") or n in ("torch", "numpy", "pluggy")]}
said["dependencies"] = module.dependencies
said["names"] = [n for n in dir(module) if not n.startswith("_")]
said["torch"] = "torch" in sys.modules
try:
    module.iqury
except AttributeError as error:
    said["unknown"] = str(error)

import avsep_zoo.plugins
avsep_zoo.registry.registry.cache_clear()
bad = Path(CHECKOUT, "plugins/avsep-bad")
(bad / "src").mkdir(parents=True)
(bad / "src/bad.py").write_text("raise RuntimeError('broken')")
(bad / "pyproject.toml").write_text('[project.entry-points.avsep_zoo]\\nbad = "bad"')
import os
os.environ["AVSEP_ZOO_STRICT"] = "1"
for action in ("always", "error"):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(action)
        said[action] = [n for n in dir(hubconf()) if not n.startswith("_")], [str(w.message) for w in caught]

for name in [n for n in sys.modules if n.startswith("avsep_zoo")]:
    del sys.modules[name]
own = [path for path in sys.path if path != CHECKOUT]
said["places"] = []
for before in ([], ["before"], ["before", ELSEWHERE], [ELSEWHERE], [ELSEWHERE, "between", CHECKOUT], [ZIP]):
    sys.path[:] = [CHECKOUT, *before, *own]            # torch.hub puts the first one there, and takes it away
    hubconf(), hubconf()
    sys.path.remove(CHECKOUT)
    left = sys.path.copy()
    assert sorted(set(own) - set(left)) == []
    said["places"].append([path for path in left if path not in own] + [sys.path[-1] == CHECKOUT])

sys.path[:] = [ELSEWHERE, *own]
import avsep_zoo
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    hubconf()
    said["same API"] = [str(w.message) for w in caught]
for version in (avsep_zoo.API_VERSION + 1, None):
    avsep_zoo.API_VERSION = version
    try:
        hubconf()
    except RuntimeError as error:
        said[f"API {version}"] = str(error)
print("SAID", json.dumps(said))
"""


@pytest.fixture
def checkout(tmp_path: Path, tiny_model: SeparationModel) -> Path:
    """A copy of this checkout, with the tiny model as the published weights."""
    root = tmp_path / "copy"
    without = shutil.ignore_patterns("__pycache__", "tests", "*.safetensors")
    for folder in ("avsep_zoo", "plugins"):
        shutil.copytree(ROOT / folder, root / folder, ignore=without)
    shutil.copy(ROOT / "hubconf.py", root)
    write_card(root / "weights_cards" / "iquery.mini", tiny_model, name="iquery.mini")
    return root


def run(folder: Path, script: str, **names: Path | str) -> dict[str, Any]:
    """Run ``script`` in ``folder``, after the constants ``names``; return what it said."""
    constants = "".join(f"{name} = {str(value)!r}\n" for name, value in names.items())
    folder.mkdir(exist_ok=True)
    (folder / "script.py").write_text(constants + script)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("AVSEP_", "PYTHON"))}
    environment |= {"TORCH_HOME": str(folder / "torch"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    said = [line.removeprefix("SAID ") for line in done.stdout.splitlines() if line.startswith("SAID ")]
    assert said, done.stderr
    found: dict[str, Any] = json.loads(said[0])
    return found


def test_local_source(tmp_path: Path, checkout: Path) -> None:
    """Loading, what Python finds afterwards, here and in a spawned process, and every mistake's text."""
    user = tmp_path / "user"
    for package in ("plugins", "tests"):
        (user / package).mkdir(parents=True)
        (user / package / "__init__.py").write_text("MINE = True\n")
    said = run(user, LOCAL, CHECKOUT=checkout)
    assert said["missing"] == "RuntimeError: Missing dependencies: pluggy"
    assert said["default"] == ["SeparationModel", "iquery.mini", False]
    plugins = checkout / "plugins"
    appended = {
        str(checkout),
        *(str(folder) for folder in plugins.glob("*/src")),
    }
    assert {str(checkout)} <= set(said["path"]) <= appended
    assert said["user"] == [True, True, True]
    assert said["late"].startswith("avsep_zoo.evaluation")
    assert said["untrained"] == ["iquery.mini", True]
    assert said["generative"] == [["davis.mini", "Diffusion"], ["davis_flow.mini", "Flow"]]
    assert said["graph"] == "avsgs.mini"
    assert said["attention"] == "ial_cms.mini"
    assert said["label"] == "film_unet.mini"
    assert said["pixels"] == "sound_of_pixels.mini"
    assert said["words"] == "bimodal_sep.mini"
    assert said["named"] == said["pretrained"] == "iquery.mini"
    assert said["composed"] == "composed"
    assert said["spawned"] == [[0, 1]]
    no_weights, no_variant, both, no_method, no_default = said["errors"]
    assert no_weights.startswith("WeightsError: There are no weights 'iquery.music' here; there are weights for")
    assert no_variant.startswith("CompositionError: iquery has no variant 'mimi'; it has iquery.music, ")
    assert both == "WeightsError: pretrained=True and weights='iquery.mini' are given; give one of them."
    assert no_default.startswith("WeightsError: There are no weights 'ial_cms.mini' here; give the folder of a card, ")
    assert no_method == "RuntimeError: Cannot find callable iqury in hubconf"


def test_weights_from_the_hub(tmp_path: Path, checkout: Path, card_on_hub: Card, hub: LoopbackHub) -> None:
    """An address on the Hub goes the same way as a name: fetched once, then from the cache without a request."""
    said = run(tmp_path / "user", FROM_HUB, CHECKOUT=checkout, ADDRESS=f"hf://{card_on_hub.hub}")
    assert said == {"model": "iquery.tiny", "sha256": card_on_hub.sha256}
    assert any(request.endswith("/model.safetensors") for request in hub.requests)
    hub.requests.clear()
    again = run(tmp_path / "user", FROM_HUB, CHECKOUT=checkout, ADDRESS=f"hf://{card_on_hub.hub}")
    assert (again, hub.requests) == (said, [])


def test_github_source_from_the_cache(tmp_path: Path, checkout: Path) -> None:
    """List, help and load from the folder torch.hub would unpack, with no network."""
    user = tmp_path / "user"
    cache = user / "torch" / "hub"
    cache.mkdir(parents=True)
    (cache / "someone_avsep-zoo_main").symlink_to(checkout)
    said = run(user, GITHUB)
    assert said["names"] == sorted(["compose", *avsep_zoo.methods()])
    assert said["model"] == "iquery.mini"
    recipe = avsep_zoo.methods()["iquery"]
    text = said["docs"]["iquery"]
    assert text.startswith(f"{recipe.summary}\n\nPaper: {recipe.paper}\nCues: {recipe.cues}.\n\nWeights: iquery.mini, ")
    assert f"variant: one of {', '.join(recipe.variant_names)};" in text
    assert " MB, licence: not stated.\n" in text
    assert "\nWeights: davis.mini, of which there is no card here.\n" in said["docs"]["davis"]
    for part in (
        '"hf://org/name@commit"',
        "pretrained:",
        "device:",
        'torch.hub.load("avsep-zoo/avsep-zoo", "iquery", trust',
    ):
        assert part in text
    assert said["docs"]["compose"].startswith("Build a model out of parts.")


def test_hubconf_alone(tmp_path: Path, checkout: Path) -> None:
    """Nothing is imported by it; its listing never raises; another avsep_zoo in the process is told apart."""
    other = tmp_path / "elsewhere" / "avsep_zoo"
    other.mkdir(parents=True)
    (other / "__init__.py").write_text(f"API_VERSION = {avsep_zoo.API_VERSION}\n")
    archive = shutil.make_archive(str(tmp_path / "egg"), "zip", tmp_path / "elsewhere")
    said = run(tmp_path / "user", ALONE, CHECKOUT=checkout, ELSEWHERE=other.parent, ZIP=Path(archive))
    assert said["imported"] == []
    assert {"dependencies", "compose", "iquery"} <= set(said["names"])
    assert not said["torch"]
    assert said["unknown"] == "hubconf.py has no entry point 'iqury'."
    assert said["always"] == [
        ["dependencies"],
        ["The methods cannot be listed (RuntimeError: broken)."],
    ]
    assert said["error"] == [["dependencies"], []]
    here, there = str(checkout), str(other.parent)
    assert said["places"] == [
        [here, True],
        ["before", here, True],
        ["before", here, there, False],
        [here, there, False],
        [here, there, "between", here, False],
        [here, archive, False],
    ]
    text = f"avsep_zoo is imported from {other / '__init__.py'} already; start a new process to use {checkout}."
    assert said["same API"] == [text]
    assert said[f"API {avsep_zoo.API_VERSION + 1}"] == said["API None"] == text


def third_party(modules: set[str], *, later: set[str]) -> set[str]:
    """Names of other packages that modules of this checkout import, directly or through all but those of ``later``."""
    sources = [ROOT, *ROOT.glob("plugins/*/src")]
    todo, seen, found = set(modules), set(later), set()
    while todo:
        name = todo.pop()
        path = next((s / name.replace(".", "/") for s in sources if (s / name.split(".")[0]).is_dir()), None)
        if path is None:
            if name.split(".")[0] not in sys.stdlib_module_names:
                found.add(name.split(".")[0])
            continue
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if name in seen or not file.is_file():
            continue
        seen.add(name)
        tree = ast.parse(file.read_text(encoding="utf-8"))
        typing_only = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            if id(node) in typing_only:
                continue
            if isinstance(node, ast.Import):
                todo |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                todo |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_dependencies_are_what_loading_and_separating_import() -> None:
    """By import name, complete and with nothing to spare, for the weights that are loaded by default.

    The report's template engine, files of detections, weights on the Hub or in a mirror, and what image networks start
    a training run from, are asked for later.
    """
    source = ast.parse((ROOT / "hubconf.py").read_text(encoding="utf-8"))
    assigned = next(n for n in source.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "dependencies")
    dependencies = ast.literal_eval(assigned.value)
    targets = {"avsep_zoo.load", "avsep_zoo.compose", "avsep_zoo.inference", "avsep_zoo.plugins"}
    for recipe in avsep_zoo.methods().values():
        for slot, part in recipe.parts(str(recipe.weights).partition(".")[2]).items():
            if slot != "objective":
                targets.add(registry().get(slot, part.name).target.split(":")[0])
    later = {"avsep_zoo.weights.pretrained", "avsep_zoo.weights.mirror", "avsep_zoo.data.detections"}
    found = third_party(targets, later=later) - {"huggingface_hub", "jinja2"}
    assert sorted(found) == sorted(dependencies)
