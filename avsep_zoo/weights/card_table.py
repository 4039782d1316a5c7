"""The table of methods and weights in the README, made of the cards and recipes alone: ``avsep card table``."""

from __future__ import annotations

import os
import re
from pathlib import Path

from avsep_zoo.errors import WeightsError
from avsep_zoo.recipe import Recipe
from avsep_zoo.registry import registry
from avsep_zoo.replaced import replaced
from avsep_zoo.weights.card_results import MEASURED, Result, read_results
from avsep_zoo.weights.cards import Card, read_card
from avsep_zoo.weights.licences import FIELDS, entries

__all__ = ["BEGIN", "END", "methods_table", "write_table"]

BEGIN, END = "<!-- avsep card table -->", "<!-- end of avsep card table -->"
_HEADERS = ("weights", "method", "cues", "size", "licence of code / weights / training data", "SDR improvement, dB")
_NUMBERS = ("size",)
_BETWEEN = re.compile(rf"{re.escape(BEGIN)}\r?\n.*?{re.escape(END)}", re.DOTALL)


def methods_table(beside: Path | None = None) -> str:
    """Return the table in Markdown: a row for every card of the checkout, by method.

    Args:
        beside: the file it is for; links begin at its folder. None is a file at the root of the checkout.

    Raises:
        WeightsError: there is no checkout, or a card cannot be read.
    """
    from avsep_zoo.plugins import checkout_root

    root = checkout_root()
    if root is None:
        raise WeightsError("The cards are in a checkout of avsep-zoo and this is an installed package; clone it.")
    base = root if beside is None else beside.resolve().parent
    rows = [_HEADERS, tuple("---:" if header in _NUMBERS else "---" for header in _HEADERS)]
    for recipe in registry().methods().values():
        cards = _cards(root, recipe)
        for number, card in enumerate(cards):
            about = (f"`{recipe.name}`: {_short_paper(recipe.paper)}", recipe.cues) if number == 0 else ("", "")
            rows.append((f"[`{card.name}`]({_link(card, base)})", *about, *_figures(card, base)))
    return "".join(f"| {' | '.join(_cell(text) for text in row)} |\n" for row in rows)


def write_table(readme: Path) -> bool:
    """Put the table between the two markers of a file, whose other bytes stay as they are.

    Returns:
        Whether the file was another one before.

    Raises:
        WeightsError: the file cannot be read or has not both markers once.
    """
    try:
        text = readme.read_bytes().decode("utf-8")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{str(readme)!r} cannot be read ({error}); give a README in UTF-8.") from error
    if (text.count(BEGIN), text.count(END), len(_BETWEEN.findall(text))) != (1, 1, 1):
        raise WeightsError(f"{str(readme)!r} has no place for the table; write {BEGIN} and {END} into it, once.")
    end = "\r\n" if f"{BEGIN}\r\n" in text else "\n"
    table = f"{BEGIN}\n\n{methods_table(readme)}\n{END}".replace("\n", end)
    changed = _BETWEEN.sub(lambda _: table, text)
    if changed == text:
        return False
    with replaced(readme) as part:
        part.write_bytes(changed.encode("utf-8"))
    return True


def _cards(root: Path, recipe: Recipe) -> list[Card]:
    """The cards of a method: the one it loads by default, then others with weights, then those to convert."""
    folders = sorted(file.parent for file in root.glob(f"weights_cards/{recipe.name}.*/README.md"))
    order = {f"{recipe.name}.{variant}": place for place, variant in enumerate(recipe.variant_names)}

    def place(card: Card) -> tuple[bool, bool, int, str]:
        return (card.name != recipe.weights, card.sha256 is None, order.get(card.name, len(order)), card.name)

    return sorted((read_card(folder) for folder in folders), key=place)


def _figures(card: Card, base: Path) -> tuple[str, str, str]:
    """Size, licences and what was measured."""
    size = f"convert: [steps]({_link(card, base)})"
    if card.sha256 is not None:
        size = f"{card.manifest['bytes'] / 1e6:.1f} MB"
    stated = entries(card.manifest)
    licences = (dict.fromkeys(entry.licence for entry in stated if entry.field == field) for field in FIELDS)
    measured = [result for result in read_results(card) if result.kind == MEASURED]
    gains = [text for result in sorted(measured, key=lambda one: one.split) if (text := _gain(result))]
    return size, " / ".join(", ".join(names) for names in licences), ", ".join(gains)


def _gain(result: Result) -> str:
    value = result.value("sdr_improvement")
    protocol = "" if result.protocol in ("", "own") else f" ({result.protocol})"
    return f"{value:.1f} {result.split or result.data}{protocol}" if isinstance(value, int | float) else ""


def _short_paper(paper: str) -> str:
    """Title, and where it was published when."""
    return ", ".join(step for step in paper.split(", ") if not re.search(r"\bet al\b|^(?i:arxiv|doi)\b", step)) or paper


def _link(card: Card, base: Path) -> str:
    path = os.path.relpath((card.folder / "README.md").resolve(), base.resolve())
    return Path(path).as_posix()


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
