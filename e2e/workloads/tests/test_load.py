import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import requests

from workloads.traffic import Load, count

from .conftest import E2E, Server, free_port, until


def start(server: Server, digits: Path, directory: Path, **options: object) -> Load:
    return Load.start(server.url, digits=digits, directory=directory, **options)  # type: ignore[arg-type]


def test_error_rate_and_accuracy_set_are_those_that_users_get(
    model: Server, digits_file: Path, tmp_path: Path
) -> None:
    model.control(errorRate=0.1, accuracy=0.9)
    with start(model, digits_file, tmp_path, rate=500, requests=2000) as load:
        until(lambda: not load.is_running, seconds=30)
        records = load.stop()
    by_status = count(records)
    judged = [record for record in records if record.ok]
    # Five standard deviations of a binomial, of 2,000 and of about 1,800.
    assert by_status["", 500] == pytest.approx(200, abs=67)
    assert sum(not record.correct for record in judged) == pytest.approx(180, abs=64)
    # What the server counted is what the users saw.
    assert by_status["v9", 200] == model.metric('model_requests_total{code="200"}')
    assert by_status["", 500] == model.metric('model_requests_total{code="500"}')
    assert sum(by_status.values()) == len({record.id for record in records}) == 2000


def test_a_change_while_it_runs_shows_in_the_records_since(
    model: Server, digits_file: Path, tmp_path: Path
) -> None:
    with start(model, digits_file, tmp_path, rate=200) as load:
        until(lambda: len(load.records()) >= 100)
        asked = time.time()
        model.control(errorRate=1)
        changed = time.time()
        until(lambda: len(load.requests_since(changed)) >= 50)
        # What began or ended while the change was under way may be either.
        assert {record.status for record in load.requests_since(changed)} == {500}
        assert {record.status for record in load.records() if record.end < asked} == {200}


def test_sends_at_the_rate_asked_for(model: Server, digits_file: Path, tmp_path: Path) -> None:
    with start(
        model, digits_file, tmp_path, rate=100, seconds=3, options=["--arrivals=even"]
    ) as load:
        until(lambda: not load.is_running, seconds=20)
        records = load.stop()
    assert len(records) == pytest.approx(300, abs=1)
    assert max(r.start for r in records) - min(r.start for r in records) == pytest.approx(
        3, abs=0.2
    )


def test_no_answer_is_recorded_as_such(model: Server, digits_file: Path, tmp_path: Path) -> None:
    with start(model, digits_file, tmp_path, rate=100) as load:
        until(lambda: len(load.records()) >= 20)
        model.control(crashAfterSeconds=0)
        until(lambda: any(record.status == 0 for record in load.records()))
        records = load.stop()
    failed = [record for record in records if record.status == 0]
    assert all(record.error and record.correct is None for record in failed)


def test_feedback_judges_every_prediction(
    model: Server, feedback: Server, digits_file: Path, tmp_path: Path
) -> None:
    model.control(accuracy=0.5)
    with start(
        model, digits_file, tmp_path, rate=300, feedback=feedback.url, label_delay_seconds=0.3
    ) as load:
        until(lambda: len(load.records()) >= 300)
        records = load.stop()
    wrong = sum(record.correct is False for record in records)
    assert feedback.summed("predictions_judged_total", version="v9") == len(records)
    assert feedback.summed("predictions_wrong_total", version="v9") == wrong > 0


def test_users_share_the_requests_and_say_who_they_are(digits_file: Path, tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["x-user-id"])
            self.send_error(503)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        bounds = {"rate": 500, "requests": 100, "options": ["--users=3"]}
        with Load.start(url, digits=digits_file, directory=tmp_path, **bounds) as load:
            until(lambda: not load.is_running, seconds=20)
        server.shutdown()
    assert len(seen) == 100
    assert set(seen) == {"user-0", "user-1", "user-2"}


def test_stats_can_be_read_while_it_runs(model: Server, digits_file: Path, tmp_path: Path) -> None:
    port = free_port()
    options = [f"--stats-port={port}"]
    with start(model, digits_file, tmp_path, rate=200, requests=200, options=options) as load:
        until(lambda: len(load.records()) >= 100)
        stats = requests.get(f"http://127.0.0.1:{port}/stats?seconds=5", timeout=5).json()
    (row,) = stats["total"]
    assert (row["version"], row["status"]) == ("v9", 200)
    assert row["count"] >= 100
    assert stats["sent"] == row["count"] + stats["inFlight"]


def test_ends_with_the_process_that_started_it(model: Server, tmp_path: Path) -> None:
    script = (
        "import sys, os; from pathlib import Path; from workloads.traffic import Load;"
        "Load.start(sys.argv[1], digits=Path(sys.argv[2]), directory=Path(sys.argv[3]));"
        "os._exit(0)"
    )
    digits = tmp_path / "digits.json"
    digits.write_text('{"pixels": [[0]], "labels": [1]}')
    command = [sys.executable, "-c", script, model.url, str(digits), str(tmp_path)]
    subprocess.run(command, check=True, env={"PYTHONPATH": str(E2E)})

    def served() -> float:
        return model.metric('model_requests_total{code="200"}') or 0

    def is_quiet() -> bool:
        before = served()
        time.sleep(0.3)
        return served() == before

    until(is_quiet)


def test_public_addresses_get_no_load(digits_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no load is sent there"):
        Load.start("http://8.8.8.8", digits=digits_file, directory=tmp_path)
