"""What the author of a new method does with the package that ``avsep new`` wrote: from the list to torch.hub."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import avsep_my_method
import numpy as np
import torch
import yaml
from typer.testing import CliRunner

import avsep_zoo
from avsep_zoo import Cue
from avsep_zoo.cli import app
from avsep_zoo.weights.front_matter import read_front_matter

ROOT, DATA = sys.argv[1:]
CARDS = Path(str(avsep_my_method.__file__)).with_name("cards")
OFFICIAL = {"encoder": "frame_net", "conditioner": "film_net", "separator": "sound_net"}
said: dict[str, Any] = {"package": str(avsep_my_method.__file__)}


def avsep(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, prog_name="avsep")
    assert result.exit_code == 0, result.output
    return result.stdout


def same(model: Any, other: Any) -> bool:
    entries = other.state_dict()
    return all(torch.equal(value, entries[key]) for key, value in model.state_dict().items())


methods = {entry["name"]: entry for entry in json.loads(avsep("list", "--json"))}
said["list"] = [variant["name"] for variant in methods["my_method"]["variants"]]

small = {"validation_mixtures": 2, "validate_every": 24, "workers": 0, "precision": "no"}
settings = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
avsep("train", "my_method.tiny", "--data", DATA, "-o", "runs/tiny", "--steps", "24", "--batch", "4", *settings)
records = [json.loads(line) for line in Path("runs/tiny/log.jsonl").read_text().splitlines()]
said["losses"] = [record["loss"] for record in records if "loss" in record]
said["sdr"] = [record["validation_sdr"] for record in records if "validation_sdr" in record]
run = avsep_zoo.load("runs/tiny")

readme = Path("runs/tiny/README.md")
ours, template = read_front_matter(readme.parent), CARDS / "TEMPLATE.md"
_, front, text = template.read_text(encoding="utf-8").split("---\n", 2)
theirs = yaml.safe_load(front)
merged = {**ours.values, **theirs, "avsep": {**ours.values["avsep"], **theirs["avsep"]}}
readme.write_text(f"---\n{yaml.safe_dump(merged, sort_keys=False)}---\n{text}", encoding="utf-8")
said["check"] = avsep("card", "check", "runs/tiny")
published = json.loads(avsep("publish", "runs/tiny", "--repo", "someone/my-method", "--json"))
address = f"hf://someone/my-method@{published['revision']}"
fetched = avsep_zoo.load(address)
said["fetched"] = same(run, fetched)

hub = torch.hub.load(ROOT, "my_method", source="local", weights=address)
said["hub"] = [hub.name, same(run, hub)]
untrained = torch.hub.load(ROOT, "my_method", source="local", weights=None)
said["untrained"] = [untrained.name, type(untrained.separator).__module__]

(CARDS / "my_method.tiny").mkdir()
shutil.copy(readme, CARDS / "my_method.tiny")
named = torch.hub.load(ROOT, "my_method", source="local", variant="tiny")
said["named"] = [named.name, same(run, named)]
pictures = [np.full((4, 32, 32, 3), value, np.uint8) for value in (40, 220)]
separation = named.separate(
    np.sin(np.arange(24000) / 9), [Cue(frames=p, name=str(p[0, 0, 0, 0])) for p in pictures], rate=8000
)
said["stems"] = [[len(stem.waveform.reshape(-1)), bool(np.isfinite(stem.waveform).all())] for stem in separation.stems]

state = run.state_dict().items()
torch.save(
    {f"{OFFICIAL[part]}.{name}": v for (part, _, name), v in ((k.partition("."), v) for k, v in state)}, "net.pth"
)
avsep("convert", "my_method.tiny", "--checkpoint", "net.pth", "-o", "converted")
said["converted"] = same(run, avsep_zoo.load("converted"))
print("SAID", json.dumps(said))
