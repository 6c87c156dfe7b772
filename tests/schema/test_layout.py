"""The source root is called `operator`, as the field expects; Python has a module of that name."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_source_root_is_not_a_package():
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_python_started_in_the_repository_imports_its_own_operator_module():
    program = "import importlib.machinery as m; print(m.PathFinder.find_spec('operator').origin)"

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert Path(done.stdout.strip()).parent == Path(sysconfig.get_path("stdlib"))


def test_every_package_below_the_source_root_says_that_it_is_one():
    folders = {each.parent for each in (ROOT / "operator" / "modelrollout").rglob("*.py")}

    assert [each for each in sorted(folders) if not (each / "__init__.py").exists()] == []
