"""How a command can end other than well: one sentence each, and an exit code that scripts can use."""

from __future__ import annotations

import click

NO = 1
NOT_FOUND = 3
DENIED = 4
UNREACHABLE = 5
TOO_LATE = 6


class Failure(click.ClickException):
    """Any of ours. Its message is a sentence with the remedy; click prints it and ends with the code."""

    exit_code = NO


class NotFound(Failure):
    """What was named does not exist, or its kind is not installed."""

    exit_code = NOT_FOUND


class Denied(Failure):
    """The API server knows who asks, or does not, and will not have it."""

    exit_code = DENIED


class Unreachable(Failure):
    """There is no way to the cluster: no kubeconfig, no answer, no trust."""

    exit_code = UNREACHABLE


class TooLate(Failure):
    """It was asked for, and was not seen to have happened in time."""

    exit_code = TOO_LATE
