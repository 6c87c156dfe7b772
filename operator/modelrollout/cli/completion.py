"""`completion`: scripts that let a shell complete commands, options and names of rollouts."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from modelrollout import cli

PROGRAM, VARIABLE = "modelrollout", "_MODELROLLOUT_COMPLETE"
KUBECTL = """#!/bin/sh
# Save as kubectl_complete-modelrollout somewhere on PATH, executable: kubectl asks it what fits.
COMP_WORDS="modelrollout $*" COMP_CWORD=$# _MODELROLLOUT_COMPLETE=bash_complete modelrollout |
  sed -n 's/^plain,//p'
echo :4
"""


@click.command(
    epilog="Example: source <(modelrollout completion bash); for kubectl: "
    "modelrollout completion kubectl > ~/.local/bin/kubectl_complete-modelrollout"
    " && chmod +x ~/.local/bin/kubectl_complete-modelrollout"
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish", "kubectl"]))
def completion(shell: str) -> None:
    """Print the script with which SHELL completes commands and names."""
    if shell == "kubectl":
        click.echo(KUBECTL, nl=False)
        return
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli.main, {}, PROGRAM, VARIABLE).source())
