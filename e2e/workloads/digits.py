"""The digits data set that the scikit-learn wheel carries, split the same way everywhere.

The models are trained on one part and the traffic is made of the other, so that the accuracy users
see is the accuracy on digits no model has met. The file is read without importing scikit-learn:
the load generator needs the digits and nothing else of it.
"""

import argparse
import csv
import gzip
import importlib.util
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

SPLIT_SEED = 20
TRAINING_SHARE = 0.6


@dataclass(frozen=True)
class Digits:
    """Pictures of 8 x 8 pixels, each from 0 to 16, row by row, and the digits they show."""

    pixels: list[list[int]]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def read(cls, path: Path) -> "Digits":
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), separators=(",", ":")))


def training() -> Digits:
    """The digits that models may learn from."""
    rows = shuffled_rows()
    return to_digits(rows[: split_index(rows)])


def held_out() -> Digits:
    """The digits that no model has seen."""
    rows = shuffled_rows()
    return to_digits(rows[split_index(rows) :])


def split_index(rows: Sequence[object]) -> int:
    return int(len(rows) * TRAINING_SHARE)


def to_digits(rows: list[list[int]]) -> Digits:
    return Digits([row[:-1] for row in rows], [row[-1] for row in rows])


def shuffled_rows() -> list[list[int]]:
    """All rows of the data set, 64 pixels and the label, in an order that never changes."""
    with gzip.open(file_in_wheel(), "rt") as lines:
        rows = [[int(float(cell)) for cell in row] for row in csv.reader(lines)]
    random.Random(SPLIT_SEED).shuffle(rows)  # noqa: S311  nobody guards a secret with it
    return rows


def file_in_wheel() -> Path:
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise SystemExit("The digits come out of the scikit-learn wheel, which is not installed.")
    return Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the held-out digits to a JSON file.")
    parser.add_argument("file", type=Path)
    held_out().write(parser.parse_args().file)


if __name__ == "__main__":
    main()
