"""The command line: one module for a command or a few, imported when they are asked for."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from modelrollout import __version__


class Entry(NamedTuple):
    """Where a command is, and what it is for in a line of the help."""

    place: str
    text: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Rollouts in the cluster": {
        "list": Entry("rollouts:list_command", "All rollouts, and what each one does."),
        "get": Entry("rollout:get", "How one stands: who gets what, how far it is, what is known."),
        "why": Entry("rollout:why", "Why it is where it is, what that rests on, what to do next."),
        "report": Entry("report:report", "A rollout as a page: one HTML file, to keep or to send."),
    },
    "What you ask of a rollout": {
        "approve": Entry("commands:approve", "Give the word that an approval step waits for."),
        "abort": Entry("commands:abort", "All users back to stable; the candidate is rejected."),
        "pause": Entry("commands:pause", "Stay at this weight; guardrails stay armed."),
        "resume": Entry("commands:resume", "Let a paused rollout go on."),
        "promote": Entry("commands:promote", "All users to the candidate now, proven or not."),
        "retry": Entry("commands:retry", "Try a rejected candidate once more."),
        "skip-step": Entry("commands:skip_step", "Leave the present step without its gate."),
    },
    "Before a rollout": {
        "init": Entry("init:init", "Write a first manifest from what is in the cluster."),
        "lint": Entry("lint:lint", "Check manifests as the API server does, with hints."),
        "plan": Entry("plan:plan", "What the steps can decide in time, and at which weights."),
        "simulate": Entry("simulate:simulate", "What the operator would do, in a world of yours."),
        "judge": Entry("judge:judge", "The verdict on a list of counts, with the evidence."),
        "backtest": Entry("backtest:backtest", "What guardrails would have said of your past."),
    },
    "Processes and the shell": {
        "operator": Entry("operator:operator", "Run the operator."),
        "comparator": Entry("comparator:comparator", "Run the comparator of mirrored requests."),
        "completion": Entry("completion:completion", "Print the script that completes words."),
    },
}
"""In the order of the help. Nobody's start, and no help, must pay for the others' imports."""
COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}
EXTRAS = {"rich": "kubectl"}


class _Commands(click.Group):
    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].place.partition(":")
        try:
            command = getattr(import_module(f"modelrollout.cli.{module}"), attribute)
        except ModuleNotFoundError as missing:
            lacking = (missing.name or "").partition(".")[0]
            if lacking not in EXTRAS:
                raise
            return _without(name, lacking)
        assert isinstance(command, click.Command)
        return command

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names of commands, and options."""
        found = (each for each in COMMANDS.items() if each[0].startswith(incomplete))
        return [
            *(CompletionItem(name, help=entry.text) for name, entry in found),
            *click.Command.shell_complete(self, context, incomplete),
        ]

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        """In sections, with their texts in one column."""
        widest = max(map(len, COMMANDS))
        for title, entries in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(widest), it.text) for name, it in entries.items()])


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
