"""The CRD files are what the types say."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from modelrollout.api import crd

ROOT = Path(__file__).parents[2]
FOLDERS = ("crds", "charts/modelrollout/crds")


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_file_equals_what_the_generator_writes(folder):
    text = (ROOT / folder / crd.FILE_NAME).read_text()

    assert text == crd.to_yaml(), "run `make crds`"


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_folder_holds_nothing_else(folder):
    assert [each.name for each in (ROOT / folder).iterdir()] == [crd.FILE_NAME]


def test_the_text_is_the_whole_definition():
    assert yaml.safe_load(crd.to_yaml()) == crd.custom_resource_definition()


def test_the_check_passes_on_a_folder_just_written(tmp_path):
    crd.main([str(tmp_path)])

    assert crd.main(["--check", str(tmp_path)]) == 0


def test_the_check_names_a_stale_file_and_the_remedy(tmp_path, capsys):
    crd.main([str(tmp_path)])
    (tmp_path / crd.FILE_NAME).write_text("stale")

    assert crd.main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{tmp_path / crd.FILE_NAME} is out of date: run `make crds`\n"
    )
    assert (tmp_path / crd.FILE_NAME).read_text() == "stale"
