"""The truth is joined with what was said, within limits."""

from modelrollout.shadow.labels import KEPT_SECONDS, Predictions, Said, Truth


def said(stable, candidate, time=0.0):
    return Said(time=time, stable=(stable,), candidate=(candidate,))


def test_a_label_says_which_version_was_right():
    predictions = Predictions()
    predictions.said("a", said("3", "5"))

    assert predictions.truth("a", ("3",), 1.0) == Truth(stable=True, candidate=False)


def test_it_is_told_once():
    predictions = Predictions()
    predictions.said("a", said("3", "5"))
    predictions.truth("a", ("3",), 1.0)

    assert predictions.truth("a", ("3",), 1.0) is None


def test_of_a_batch_every_row_must_be_right():
    predictions = Predictions()
    predictions.said("a", Said(time=0.0, stable=("1", "2"), candidate=("1", "3")))

    assert predictions.truth("a", ("1", "2"), 1.0) == Truth(stable=True, candidate=False)


def test_after_an_hour_nothing_is_known():
    predictions = Predictions()
    predictions.said("a", said("3", "5"))

    assert predictions.truth("a", ("3",), KEPT_SECONDS + 1) is None
    assert len(predictions) == 0


def test_the_oldest_gives_way():
    predictions = Predictions(most=2)
    for name in "abc":
        predictions.said(name, said("1", "1"))

    assert len(predictions) == 2
    assert predictions.truth("a", ("1",), 1.0) is None
    assert predictions.truth("c", ("1",), 1.0) is not None


def test_a_request_that_is_repeated_counts_with_its_last_answers():
    predictions = Predictions(most=2)
    predictions.said("a", said("1", "1", time=1.0))
    predictions.said("b", said("1", "1", time=2.0))
    predictions.said("a", said("2", "2", time=3.0))
    predictions.said("c", said("1", "1", time=4.0))

    assert predictions.truth("b", ("1",), 5.0) is None
    assert predictions.truth("a", ("2",), 5.0) == Truth(stable=True, candidate=True)
