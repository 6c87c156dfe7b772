"""Train the two models that the real server can serve; run when its image is built.

Both are of the same kind and size, so they are equally fast: who looks at errors and latency alone
cannot tell them apart. The poor one has learned from 40 digits instead of 1,078.
"""

import argparse
from pathlib import Path

import joblib
from sklearn.linear_model import LogisticRegression

from workloads import digits
from workloads.digits import Digits

TRAINING_DIGITS = {"good": None, "poor": 40}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, help="where QUALITY.joblib files are written")
    directory = parser.parse_args().directory
    directory.mkdir(parents=True, exist_ok=True)
    for quality, count in TRAINING_DIGITS.items():
        model = trained(digits.training(), count)
        print(f"{quality}: accuracy {accuracy(model, digits.held_out()):.3f} on held-out digits")
        joblib.dump(model, directory / f"{quality}.joblib")


def trained(data: Digits, count: int | None) -> LogisticRegression:
    model = LogisticRegression(C=0.1, max_iter=2000, random_state=0)
    return model.fit(data.pixels[:count], data.labels[:count])


def accuracy(model: LogisticRegression, data: Digits) -> float:
    return float(model.score(data.pixels, data.labels))


if __name__ == "__main__":
    main()
