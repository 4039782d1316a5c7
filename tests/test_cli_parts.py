"""``avsep parts``: what there is to put together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from avsep_zoo.cli import app
from avsep_zoo.hookspecs import hookimpl
from avsep_zoo.plugins import register_plugin
from avsep_zoo.registry import PART_KINDS, Register, registry


def avsep(*arguments: object, columns: int = 80) -> Result:
    """Run a command in this process."""
    settings = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    return CliRunner().invoke(app, [str(a) for a in arguments], env=settings, prog_name="avsep")


def listed(*arguments: str) -> dict[str, dict[str, Any]]:
    """Parts by name."""
    return {part["name"]: part for part in json.loads(avsep("parts", *arguments, "--json").stdout)}


@pytest.fixture
def broken() -> Iterator[None]:
    """A plugin with an encoder that needs a package, and a conditioner that is none."""

    class Broken:
        @hookimpl
        def avsep_register(self, register: Register) -> None:
            register.encoder("broken.deaf", "missing_package.encoder:Deaf", "what is not there")
            register.conditioner("broken.mute", "json:JSONDecoder", "what is something else")

    register_plugin(Broken(), "broken")
    yield
    registry.cache_clear()


def test_an_encoder_tells_what_it_reads_and_gives() -> None:
    """Also which modalities it can do without, and the settings it has."""
    found = listed("encoder")
    assert (
        found["ial_cms.deeplab"] | {"reads": ["detections", "frames"], "optional": ["detections"]}
        == (found["ial_cms.deeplab"])
    )
    assert found["ial_cms.deeplab"]["gives"] == {"map": 512, "vector": 512}
    assert found["iquery.cues"]["needed"] == ["classes"]
    assert found["iquery.cues"]["settings"]["image_size"] == 224


def test_a_conditioner_tells_what_it_wants_and_where_it_acts() -> None:
    """Also where it acts if there is such a site."""
    found = listed("conditioner")
    assert (found["iquery.queries"]["wants"], found["iquery.queries"]["acts_at"]) == (["vector"], ["head", "latent"])
    assert found["bimodal_sep.attention"]["acts_at"] == ["bottleneck"]
    assert found["bimodal_sep.attention"]["may_act_at"] == ["head"]


def test_a_separator_tells_its_sites_and_whether_it_is_driven() -> None:
    found = listed("separator")
    assert found["mask_unet"]["sites"]["latent"] == {"kind": "latent", "channels": 256}
    drivers = {name: found[name]["driver"] for name in ("mask_unet", "davis.unet", "avsgs.unet")}
    assert drivers == {"mask_unet": "driven=true", "davis.unet": "needed", "avsgs.unet": "none"}


def test_drivers_and_objectives_tell_what_they_can() -> None:
    assert listed("driver")["flow"]["solvers"]["heun"] == 2
    assert listed("objective")["bimodal_sep.bimodal"]["learns_from"] == ["solos", "mixtures of sounds", "captions"]


@pytest.mark.parametrize("kind", PART_KINDS)
def test_every_kind_can_be_listed(kind: str) -> None:
    """All that is registered, with its plugin."""
    assert {name: part["plugin"] for name, part in listed(kind).items()} == {
        entry.name: entry.plugin for entry in registry().list(kind)
    }
    assert not [part["problem"] for part in listed(kind).values() if part["problem"]]


def test_the_whole_list_fits_80_columns() -> None:
    """A name is in one piece, and what it does stands under its summary."""
    text = avsep("parts").stdout
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    row = next(i for i, line in enumerate(lines) if line.startswith("bimodal_sep.clap_text "))
    assert lines[row + 1].strip() == "reads label or text; gives vector 512, tokens 768"
    assert "sites bottleneck 512; needs a driver" in text


def test_a_part_that_cannot_be_described_is_listed_with_the_reason(broken: None) -> None:
    """And hides no other."""
    found = listed()
    assert "'broken.deaf' of plugin 'broken' cannot be imported" in found["broken.deaf"]["problem"]
    assert "cannot be described" in found["broken.mute"]["problem"] and found["tiled_concat"]["problem"] is None
    result = avsep("parts", "encoder", columns=200)
    assert result.exit_code == 0 and "No module named 'missing_package'" in result.stdout


def test_kinds_may_be_written_as_people_do() -> None:
    assert listed("front-ends").keys() == listed("front_end").keys()
    result = avsep("parts", "encodder")
    assert result.exit_code == 2 and "There is no kind 'encodder'" in result.output
