"""The comparator's process: settings, event loop, server."""

from __future__ import annotations

import logging
from pathlib import Path

import click
import uvloop

from modelrollout.shadow import settings
from modelrollout.shadow.answers import judge_of
from modelrollout.shadow.requests import selection_of
from modelrollout.shadow.server import serve


@click.command()
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="MODELROLLOUT_COMPARATOR_CONFIG",
    required=True,
    help="The file that the operator writes: both addresses, and spec.shadow.",
)
def comparator(config: Path) -> None:
    """Compare the answers of two versions to mirrored requests."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        chosen = settings.read(config)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    try:
        judge_of(chosen.shadow)
        selection_of(chosen.shadow)
    except ValueError as error:
        raise click.UsageError(f"{config}: shadow.{error}") from error
    uvloop.run(serve(chosen))
