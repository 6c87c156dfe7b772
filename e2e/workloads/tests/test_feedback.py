import requests

from workloads.feedback import Feedback, Prediction

from .conftest import Server


def value(feedback: Feedback, sample: str, **labels: str) -> float | None:
    return feedback.registry.get_sample_value(sample, labels)


def test_joins_predictions_and_labels_over_http(feedback: Server) -> None:
    predictions = [
        {"id": "a", "version": "v1", "predicted": 3},
        {"id": "b", "version": "v1", "predicted": 4},
        {"id": "c", "version": "v2", "predicted": 5},
    ]
    requests.post(f"{feedback.url}/predictions", json=predictions, timeout=5).raise_for_status()
    assert feedback.metric('predictions_judged_total{digit="3",version="v1"}') == 0
    assert feedback.metric('predictions_wrong_total{digit="9",version="v2"}') == 0
    labels = [{"id": "a", "label": 3}, {"id": "b", "label": 9}, {"id": "nobody", "label": 1}]
    requests.post(f"{feedback.url}/labels", json=labels, timeout=5).raise_for_status()
    assert feedback.summed("predictions_judged_total", version="v1") == 2
    assert feedback.summed("predictions_wrong_total", version="v1") == 1
    assert feedback.summed("predictions_judged_total", version="v2") == 0


def test_counts_by_the_digit_that_was_shown(feedback: Server) -> None:
    predictions = [{"id": "a", "version": "v1", "predicted": 4}]
    requests.post(f"{feedback.url}/predictions", json=predictions, timeout=5).raise_for_status()
    labels = [{"id": "a", "label": 9}]
    requests.post(f"{feedback.url}/labels", json=labels, timeout=5).raise_for_status()
    assert feedback.metric('predictions_wrong_total{digit="9",version="v1"}') == 1
    assert feedback.metric('predictions_wrong_total{digit="4",version="v1"}') == 0


def test_a_batch_with_a_bad_row_counts_not_at_all(feedback: Server) -> None:
    batch = [{"id": "a", "version": "v1", "predicted": 3}, {"id": "b", "version": "v1"}]
    assert requests.post(f"{feedback.url}/predictions", json=batch, timeout=5).status_code == 400
    assert feedback.metric('predictions_judged_total{digit="3",version="v1"}') is None


def test_a_label_may_come_first() -> None:
    feedback = Feedback()
    feedback.label("a", 3, now=0)
    feedback.predict("a", Prediction("v1", 4), now=1)
    assert value(feedback, "predictions_wrong_total", version="v1", digit="3") == 1


def test_a_pair_is_judged_once() -> None:
    feedback = Feedback()
    feedback.predict("a", Prediction("v1", 3), now=0)
    feedback.label("a", 3, now=0)
    feedback.label("a", 3, now=0)
    assert value(feedback, "predictions_judged_total", version="v1", digit="3") == 1


def test_what_waits_too_long_is_dropped_and_counted() -> None:
    feedback = Feedback(ttl_seconds=10)
    feedback.predict("old", Prediction("v1", 3), now=0)
    feedback.predict("new", Prediction("v1", 3), now=11)
    feedback.label("old", 3, now=11)
    assert value(feedback, "predictions_judged_total", version="v1", digit="3") == 0
    assert value(feedback, "feedback_dropped_total", half="prediction") == 1


def test_a_late_repetition_of_a_waiting_id_is_no_error() -> None:
    feedback = Feedback(ttl_seconds=10)
    feedback.label("a", 3, now=0)
    feedback.label("a", 3, now=11)
    assert value(feedback, "feedback_dropped_total", half="label") == 1


def test_memory_is_bounded() -> None:
    feedback = Feedback(capacity=100)
    for number in range(250):
        feedback.predict(str(number), Prediction("v1", 3), now=0)
    assert len(feedback.predictions.halves) == 100
    assert value(feedback, "feedback_dropped_total", half="prediction") == 150
