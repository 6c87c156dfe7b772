import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from workloads.model_server import CRASH_EXIT_CODE, Behaviour

from .conftest import Server, answers, until


def infer(server: Server, digit: int = 3) -> requests.Response:
    message = {"id": "a", "inputs": [], "parameters": {"digit": digit}}
    return requests.post(f"{server.url}/v2/models/digits/infer", json=message, timeout=5)


def test_answers_in_the_open_inference_protocol(model: Server) -> None:
    model.control(accuracy=1)
    answer = infer(model, digit=3).json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("digits", "v9", "a")
    assert answer["outputs"][0]["data"] == [3]


def test_counters_are_born_at_zero_and_count_by_code(model: Server) -> None:
    assert model.metric('model_requests_total{code="500"}') == 0
    infer(model)
    model.control(errorRate=1)
    assert infer(model).status_code == 500
    assert model.metric('model_requests_total{code="200"}') == 1
    assert model.metric('model_requests_total{code="500"}') == 1
    assert model.metric("model_request_duration_seconds_count") == 2


def test_tail_is_added_to_its_share_of_requests(model: Server) -> None:
    model.control(tailShare=1, tailSeconds=0.2)
    assert infer(model).elapsed.total_seconds() >= 0.2
    assert model.metric('model_request_duration_seconds_bucket{le="0.15"}') == 0


def test_a_weak_digit_has_an_accuracy_of_its_own(model: Server) -> None:
    model.control(accuracy=1, weakDigit=7, weakAccuracy=0)
    answers = {digit: infer(model, digit).json()["outputs"][0]["data"][0] for digit in range(10)}
    assert [digit for digit, answer in answers.items() if answer != digit] == [7]
    model.control(weakDigit=None)
    assert infer(model, digit=7).json()["outputs"][0]["data"] == [7]


def test_confidence_has_the_mean_that_was_set_and_is_exported(model: Server) -> None:
    model.control(confidence=0.7)
    told = [infer(model).json()["outputs"][1]["data"][0] for _ in range(100)]
    # Five standard deviations of the mean of a hundred.
    assert sum(told) / 100 == pytest.approx(0.7, abs=0.05)
    assert model.metric("model_confidence_count") == 100
    assert model.metric("model_confidence_sum") == pytest.approx(sum(told))


def test_latency_has_the_median_that_was_set(model: Server) -> None:
    model.control(latencySeconds={"median": 0.02, "sigma": 0.1})
    times = sorted(infer(model).elapsed.total_seconds() for _ in range(31))
    assert 0.018 < times[15] < 0.04


def test_is_not_ready_before_its_delay_is_over_but_alive(model: Server) -> None:
    model.control(readyDelaySeconds=0.5)
    assert not answers(f"{model.url}/v2/health/ready")
    assert answers(f"{model.url}/v2/health/live")
    until(lambda: answers(f"{model.url}/v2/health/ready"))


def test_crashes_when_told(model: Server) -> None:
    model.control(crashAfterSeconds=0)
    assert model.process.wait(5) == CRASH_EXIT_CODE


def test_a_crash_can_be_called_off(model: Server) -> None:
    model.control(crashAfterSeconds=0.3)
    assert model.control(crashAfterSeconds=None).ok
    time.sleep(0.5)
    assert model.process.poll() is None


def test_finishes_the_request_under_way_when_asked_to_end(model: Server) -> None:
    model.control(latencySeconds={"median": 0.5, "sigma": 0})
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(infer, model)
        time.sleep(0.2)
        model.process.terminate()
        assert answer.result().status_code == 200
    assert model.process.wait(5) == 0


@pytest.mark.parametrize(
    "wish",
    [
        {"errorRate": 1.5},
        {"accuracy": "high"},
        {"weakDigit": 10},
        {"weakDigit": 2.5},
        {"confidence": 1},
        {"tailSeconds": -1},
        {"latencySeconds": {"mean": 1}},
        {"crash": True},
        {"errorRate": None},
        ["errorRate"],
    ],
)
def test_refuses_a_wish_it_does_not_understand(wish: object) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError)):
        Behaviour().changed(wish)  # type: ignore[arg-type]


def test_environment_sets_the_behaviour() -> None:
    behaviour = Behaviour.from_environment({"ERROR_RATE": "0.05", "LATENCY_MEDIAN_SECONDS": "0.01"})
    assert behaviour == Behaviour(error_rate=0.05, latency_median_seconds=0.01)
