"""What a stranger does with torch.hub, and with nothing else: list, help, load, separate, save, report."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

REPO = "avsep-zoo/avsep-zoo:main"
ABSENT = ("avsep_zoo", "avsep_iquery", "huggingface_hub", "pip", "torch_geometric", "torchvision", "transformers")

said: dict[str, Any] = {"present": [name for name in ABSENT if importlib.util.find_spec(name) is not None]}
names = torch.hub.list(REPO, trust_repo=True, verbose=False)
said["names"] = names
said["help"] = {name: torch.hub.help(REPO, name, trust_repo=True) for name in names}

demo = Path(torch.hub.get_dir()) / "avsep-zoo_avsep-zoo_main" / "avsep_zoo" / "demo"
duet = json.loads((demo / "duet.json").read_text())
sounds, rates = zip(*(soundfile.read(demo / source["file"]) for source in duet["sources"]), strict=True)
said |= {"loaded": {}, "better": {}, "files": {}, "failed": {}}
for name in names:
    if name == "compose":
        continue
    untrained = "\nWeights: none are published.\n" in said["help"][name]
    try:
        which: dict[str, Any] = {"variant": "mini", "weights": None} if untrained else {}
        model = torch.hub.load(REPO, name, trust_repo=True, verbose=False, **which)
        from avsep_zoo import Cue
        from avsep_zoo.evaluation import bss_eval
        from avsep_zoo.media import resample

        told = []
        for source in duet["sources"]:
            if name in ("film_unet", "iquery"):
                told.append(Cue(label=source["label"]))
            elif name == "bimodal_sep":
                told.append(Cue(text=f"a {source['label']} is played"))
            else:
                told.append(Cue(boxes=source["boxes"], name=source["label"]))
        separation = model.separate(demo / duet["media"], told)
        said["loaded"][name] = [model.name, model.training, separation.adds_up]
        signals = [separation.mixture, *(stem.waveform for stem in separation.stems)]
        heard = [resample(np.asarray(signal), separation.rate, rates[0]).mean(axis=0) for signal in signals]
        mixture, *stems = [signal[: len(sounds[0])] for signal in heard]
        scores = bss_eval(np.stack(sounds), np.stack([[mixture] * 2, stems]), filter_length=64).sdr
        if not untrained:
            said["better"][name] = (scores[1] - scores[0]).tolist()
        separation.save(Path("stems", name))
        said["files"][name] = sorted(path.name for path in Path("stems", name).iterdir())
    except Exception as error:
        said["failed"][name] = f"{type(error).__name__}: {error}"
page = separation.report("report.html")
said["report"] = page.read_text(encoding="utf-8")[:15].lower()
print("SAID", json.dumps(said))
