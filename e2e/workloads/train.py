"""Train the models that the real server can serve; run when its image is built.

All are of the same kind and size, so they are equally fast: who looks at errors and latency alone
cannot tell them apart. The poor one has learned from 40 digits instead of 1,078. The retrained one
has learned from 600 others of them: it is right as often as the good one, about other digits.
"""

import argparse
from pathlib import Path

import joblib
from sklearn.linear_model import LogisticRegression

from workloads import digits
from workloads.digits import Digits

TRAINING_DIGITS = {"good": slice(None), "poor": slice(40), "retrained": slice(50, 650)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where QUALITY.joblib files are written")
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for quality, part in TRAINING_DIGITS.items():
        model = trained(digits.training(), part)
        print(f"{quality}: accuracy {accuracy(model, digits.held_out()):.3f} on held-out digits")
        joblib.dump(model, directory / f"{quality}.joblib")


def trained(data: Digits, part: slice) -> LogisticRegression:
    model = LogisticRegression(C=0.1, max_iter=2000, random_state=0)
    return model.fit(data.pixels[part], data.labels[part])


def accuracy(model: LogisticRegression, data: Digits) -> float:
    return float(model.score(data.pixels, data.labels))


if __name__ == "__main__":
    main()
