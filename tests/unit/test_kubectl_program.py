"""The program around its commands: help, extras, completion, and what krew installs."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import click
import pytest
import yaml
from click.testing import CliRunner

from modelrollout import __version__
from modelrollout.cli import COMMANDS, commands, main
from modelrollout.core.observation import Verb
from modelrollout.kubectl.giving import RECORDED

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_that_says_what_it_does(name):
    done = CliRunner().invoke(main, [name, "--help"])

    assert done.exit_code == 0
    assert f" {name} [OPTIONS]" in done.output


def test_the_help_lists_every_command_once():
    lines = CliRunner().invoke(main, ["--help"]).output.splitlines()
    listed = [each.split()[0] for each in lines if each.startswith("  ") and each.split()]

    assert [listed.count(name) for name in COMMANDS] == [1] * len(COMMANDS)


@pytest.mark.parametrize("columns", [80, 200])
def test_every_command_has_one_line_of_the_help(columns):
    lines = CliRunner(env={"COLUMNS": str(columns)}).invoke(main, ["--help"]).output.splitlines()

    for name, entry in COMMANDS.items():
        assert [each.split(maxsplit=1) for each in lines if each.startswith(f"  {name} ")] == [
            [name, entry.text]
        ]


HEAVY = ("numpy", "scipy", "kopf", "kubernetes", "prometheus_api_client", "aiohttp", "asyncio")


@pytest.mark.parametrize("module", ["commands", "rollout", "rollouts"])
def test_what_is_asked_at_3_in_the_morning_starts_at_once(module):
    """Importing all of these takes a second; what the commands need themselves, a quarter."""
    program = (
        f"import sys, modelrollout.cli.{module}; print(*sorted({{*{HEAVY}}} & {{*sys.modules}}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == []


def test_the_help_and_the_completion_of_commands_import_none_of_them():
    program = (
        "import sys; from click.testing import CliRunner; from modelrollout.cli import main;"
        " CliRunner().invoke(main, ['--help']);"
        " CliRunner(env={'COMP_WORDS': 'modelrollout ', 'COMP_CWORD': '1',"
        " '_MODELROLLOUT_COMPLETE': 'bash_complete'}).invoke(main, prog_name='modelrollout');"
        " print(*(each for each in sys.modules if each.startswith('modelrollout.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["modelrollout.cli"]


def test_kubectl_finds_the_same_program():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["scripts"]["kubectl-modelrollout"] == "modelrollout.cli:plugin"
    program = "import sys; sys.argv = ['x', 'get', '--nothing']; from modelrollout.cli import plugin; plugin()"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "Usage: kubectl modelrollout get" in done.stderr


def test_a_command_without_its_extra_says_which_one_to_install():
    program = "import sys; sys.modules['rich'] = None; from modelrollout.cli import main; main(['get', 'x'])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert "get needs rich: install modelrollout-operator[kubectl]" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("shell", ["zsh", "fish", "kubectl"])
def test_completion_prints_a_script(shell):
    done = CliRunner().invoke(main, ["completion", shell])

    assert done.exit_code == 0
    assert "_MODELROLLOUT_COMPLETE" in done.output


def test_words_are_completed(tmp_path):
    (tmp_path / "none").write_text("")
    environment = {"KUBECONFIG": str(tmp_path / "none")}
    found = complete("modelrollout ab", 1, environment)
    nobody = complete("modelrollout abort ra", 2, environment)

    assert found == ["plain,abort"]
    assert nobody == []


def complete(words: str, at: int, environment: dict[str, str]) -> list[str]:
    env = environment | {
        "COMP_WORDS": words,
        "COMP_CWORD": str(at),
        "_MODELROLLOUT_COMPLETE": "bash_complete",
    }
    done = CliRunner(env=env).invoke(main, prog_name="modelrollout")
    return done.output.split()


def test_what_krew_installs_is_what_its_manifest_says(tmp_path):
    wheel = tmp_path / f"modelrollout_operator-{__version__}-py3-none-any.whl"
    wheel.write_bytes(b"a wheel")
    command = [sys.executable, str(ROOT / "plugins" / "pack.py"), str(wheel), "https://x/y.tar.gz"]

    for folder in ("one", "two"):
        subprocess.run([*command, str(tmp_path / folder)], check=True)

    packed = (tmp_path / "one" / "kubectl-modelrollout.tar.gz").read_bytes()
    manifest = yaml.safe_load((tmp_path / "one" / "modelrollout.yaml").read_text())
    (platform,) = manifest["spec"]["platforms"]
    assert packed == (tmp_path / "two" / "kubectl-modelrollout.tar.gz").read_bytes()
    assert manifest["spec"]["version"] == f"v{__version__}"
    assert platform["sha256"] == hashlib.sha256(packed).hexdigest()
    assert platform["uri"] == "https://x/y.tar.gz"
    with tarfile.open(tmp_path / "one" / "kubectl-modelrollout.tar.gz") as archive:
        launcher = archive.getmember(platform["bin"])
        assert launcher.mode & 0o111
        assert sorted(archive.getnames()) == sorted(["LICENSE", platform["bin"], wheel.name])


def test_commands_are_those_that_the_operator_obeys():
    assert set(commands.TEXTS) == set(RECORDED) == set(Verb)
    for verb in Verb:
        assert isinstance(main.get_command(click.Context(main), verb), click.Command)
