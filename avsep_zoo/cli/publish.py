"""``avsep publish``: a card to the Hugging Face Hub, and its pin."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from avsep_zoo.cli.terminal import client_bars, console, print_json

__all__ = ["publish"]


def publish(
    card: Annotated[Path, typer.Argument(help="Folder of a weights card, e.g. of a training run.")],
    repo: Annotated[str, typer.Option(metavar="ORG/NAME", help="Model on the Hub; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="If it is made: only its owners see it.")] = False,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it is as JSON.")] = False,
) -> None:
    """Publish a card on the Hugging Face Hub.

    README and weights are uploaded in one commit, nothing else of the folder, and the card is
    pinned to it. Log in once with 'hf auth login', or set HF_TOKEN.
    """
    from avsep_zoo.weights.publish import publish as published

    with client_bars(shown=console(stderr=True).is_terminal and not as_json):
        result = published(card, repo, private=private, message=message)
    remote = f"hf://{result.repo}@{result.revision}"
    if as_json:
        print_json(
            {
                "name": result.card.name,
                "repo": result.repo,
                "revision": result.revision,
                "address": result.address,
                "private": result.private,
                "uploaded": result.uploaded,
                "load": [remote, str(card)],
            }
        )
        return
    screen = console()
    done = "published" if result.uploaded else "there already, nothing was uploaded"
    seen = "; private: only its owners can load it, logged in" if result.private else ""
    screen.print(f"{result.card.name} is {done}{seen}:\n  {result.address}", soft_wrap=True)
    screen.print(f"The card in {card} is pinned to it. Load either:", soft_wrap=True)
    for place in (remote, str(card)):
        screen.print(f"  avsep_zoo.load({place!r})", soft_wrap=True)
