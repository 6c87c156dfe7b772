"""The command line: one module for a command or a few, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module

import click

from modelrollout import __version__

SECTIONS: dict[str, dict[str, str]] = {
    "Rollouts in the cluster": {
        "list": "rollouts:list_command",
        "get": "rollout:get",
        "why": "rollout:why",
        "report": "report:report",
    },
    "What you ask of a rollout": {
        "approve": "commands:approve",
        "abort": "commands:abort",
        "pause": "commands:pause",
        "resume": "commands:resume",
        "promote": "commands:promote",
        "retry": "commands:retry",
        "skip-step": "commands:skip_step",
    },
    "Before a rollout": {
        "init": "init:init",
        "lint": "lint:lint",
        "plan": "plan:plan",
        "simulate": "simulate:simulate",
        "judge": "judge:judge",
        "backtest": "backtest:backtest",
    },
    "Processes and the shell": {
        "operator": "operator:operator",
        "comparator": "comparator:comparator",
        "completion": "completion:completion",
    },
}
"""In the order of the help. The operator's start must not pay for the others' imports."""
COMMANDS = {name: place for section in SECTIONS.values() for name, place in section.items()}
EXTRAS = {"rich": "kubectl"}


class _Commands(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        try:
            command = getattr(import_module(f"modelrollout.cli.{module}"), attribute)
        except ModuleNotFoundError as missing:
            lacking = (missing.name or "").partition(".")[0]
            if lacking not in EXTRAS:
                raise
            return _without(name, lacking)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        """In sections."""
        limit = formatter.width - 6 - max(map(len, COMMANDS))
        for title, names in SECTIONS.items():
            found = ((name, self.get_command(context, name)) for name in names)
            rows = [(name, each.get_short_help_str(limit)) for name, each in found if each]
            with formatter.section(title):
                formatter.write_dl(rows)


def _without(name: str, module: str) -> click.Command:
    """A command whose extra is not installed says which one it is."""
    said = f"{name} needs {module}: install modelrollout-operator[{EXTRAS[module]}]"

    @click.command(name, help=said, context_settings={"ignore_unknown_options": True})
    @click.argument("_arguments", nargs=-1, type=click.UNPROCESSED)
    def command(_arguments: tuple[str, ...]) -> None:
        raise click.UsageError(said)

    return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(version)s")
def main() -> None:
    """Safe rollouts of machine-learning models on Kubernetes, decided by evidence."""


def plugin() -> None:
    """The same program, as kubectl calls it."""
    main(prog_name="kubectl modelrollout", complete_var="_KUBECTL_MODELROLLOUT_COMPLETE")
