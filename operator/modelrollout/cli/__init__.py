"""The command line: one module for each command, imported when it is asked for."""

from __future__ import annotations

from importlib import import_module

import click

from modelrollout import __version__

COMMANDS = ("operator", "comparator", "plan", "simulate", "judge", "backtest")
"""In the order of the help. The operator's start must not pay for the others' imports."""


class _Commands(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = getattr(import_module(f"modelrollout.cli.{name}"), name)
        assert isinstance(command, click.Command)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Safe rollouts of machine-learning models on Kubernetes, decided by evidence."""
