"""What goes wrong on the way to a cluster is one sentence and an exit code, never a traceback."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from kube_apiserver import ApiServer
from modelrollout.api import fields
from modelrollout.cli import main
from modelrollout.kubectl import server
from terminal import Shop, answering


def run(kubeconfig: Path | str, *arguments: str, **environment: str) -> Result:
    env = {"KUBECONFIG": str(kubeconfig), "COLUMNS": "80"} | environment
    return CliRunner(env=env).invoke(main, list(arguments or ["list"]), catch_exceptions=False)


def written(folder: Path, server_url: str, user: dict[str, Any], **cluster: Any) -> Path:
    path = folder / "config"
    path.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": server_url, **cluster}}],
                "users": [{"name": "u", "user": user}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


def is_one_sentence(done: Result, code: int, says: str) -> None:
    assert done.exit_code == code, done.output
    assert done.output.startswith("Error: ")
    assert done.output.count("\n") == 1
    assert says in done.output


@pytest.fixture
def insecure() -> dict[str, Any]:
    return {"insecure-skip-tls-verify": True}


def test_the_words_of_the_api_are_those_of_the_types():
    assert f"apis/{fields.API_VERSION}" == server.ROLLOUTS
    assert server.PLURAL == fields.PLURAL


def test_a_missing_kubeconfig(tmp_path):
    is_one_sentence(run(tmp_path / "none"), 5, "there is no kubeconfig")
    given = run("", "list", "--kubeconfig", str(tmp_path / "none"))
    is_one_sentence(given, 5, f"there is no kubeconfig {tmp_path / 'none'}")
    home = run("", "list", HOME=str(tmp_path))
    is_one_sentence(home, 5, str(tmp_path / ".kube" / "config"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "cannot be read: expected the node content, but found '<stream end>' in line 1"),
        ("[]", "no current context"),
        ("[1]", "it is not a mapping"),
        ("current-context: x", "has no context 'x'"),
        ("{current-context: x, contexts: [{name: x, context: {cluster: c}}]}", "no cluster 'c'"),
    ],
)
def test_a_kubeconfig_that_is_none(tmp_path, text, says):
    (tmp_path / "config").write_text(text)

    is_one_sentence(run(tmp_path / "config"), 5, says)


def test_a_cluster_that_does_not_answer(tmp_path):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        path = written(tmp_path, url, {"token": "x"})

        is_one_sentence(run(path), 5, f"the cluster does not answer at {url}")
        is_one_sentence(
            run(written(tmp_path, "https://no.such.host.invalid", {})), 5, "no.such.host"
        )


def test_a_certificate_that_nobody_vouches_for(kube: ApiServer, tmp_path):
    is_one_sentence(run(written(tmp_path, kube.url, {"token": "admin"})), 5, "is not trusted")


def test_a_user_whom_the_api_server_does_not_know(kube: ApiServer, tmp_path, insecure):
    path = written(tmp_path, kube.url, {"token": "nobody"}, **insecure)

    is_one_sentence(run(path), 4, "the API server does not know you")


def test_a_user_who_may_not_look(kube: ApiServer):
    path = kube.kubeconfig("eve")

    for command in (["list"], ["list", "-A"], ["get", "x"], ["why", "x"], ["pause", "x", "-y"]):
        is_one_sentence(run(path, *command), 4, 'User "eve" cannot')


def test_what_does_not_exist_is_named_with_what_does(shop: Shop):
    done = shop.run("get", "nothing")

    is_one_sentence(done, 3, f"namespace {shop.namespace} has no ModelRollout nothing: it has none")


@pytest.mark.parametrize(
    ("status", "body", "code", "says"),
    [
        # as a real API server answers for a group that it does not serve
        (404, b"404 page not found\n", 3, "install the CRD"),
        (503, b"no healthy upstream", 5, "the API server answered 503: no healthy upstream"),
        (200, b"<html>", 5, "is it a Kubernetes API server?"),
        (404, json.dumps({"kind": "Status", "message": "gone"}).encode(), 3, "install the CRD"),
        (429, b"", 1, "Too Many Requests"),
    ],
)
def test_answers_of_other_kinds(tmp_path, status, body, code, says):
    with answering(status, body) as url:
        is_one_sentence(run(written(tmp_path, url, {})), code, says)


def plugin(folder: Path, text: str) -> dict[str, Any]:
    script = folder / "credentials"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    return {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "./credentials",
            "env": [{"name": "TOKEN", "value": "admin"}],
        }
    }


def test_a_credential_from_a_program(kube: ApiServer, tmp_path, insecure):
    user = plugin(tmp_path, 'printf \'{"status": {"token": "%s"}}\' "$TOKEN"')

    assert run(written(tmp_path, kube.url, user, **insecure)).exit_code == 0


def test_a_program_without_a_credential(kube: ApiServer, tmp_path, insecure):
    path = written(tmp_path, kube.url, plugin(tmp_path, "exit 3"), **insecure)
    is_one_sentence(run(path), 5, "exec plugin failed")
    path = written(tmp_path, kube.url, plugin(tmp_path, "echo hello"), **insecure)
    is_one_sentence(run(path), 5, "gave no credential")
    (tmp_path / "credentials").unlink()
    is_one_sentence(run(path), 5, "exec plugin ./credentials is missing")


def test_a_token_from_a_file_beside_the_kubeconfig(kube: ApiServer, tmp_path, insecure):
    (tmp_path / "token").write_text("admin\n")

    assert run(written(tmp_path, kube.url, {"tokenFile": "token"}, **insecure)).exit_code == 0
    missing = run(written(tmp_path, kube.url, {"tokenFile": "other"}, **insecure))
    is_one_sentence(missing, 5, "other, which the kubeconfig names, cannot be read")


def test_an_authority_that_vouches_for_another_name(kube: ApiServer, tmp_path):
    """The API server's own certificate is for localhost, too."""
    authority = (kube.folder / "certificates" / "apiserver.crt").read_bytes()
    data = {"certificate-authority-data": base64.b64encode(authority).decode()}

    as_named = run(written(tmp_path, kube.url, {"token": "admin"}, **data))
    other = run(written(tmp_path, kube.url, {"token": "admin"}, **data, **{"tls-server-name": "x"}))

    assert as_named.exit_code == 0, as_named.output
    is_one_sentence(other, 5, "is not trusted")


def test_several_kubeconfigs_are_one_and_the_first_wins(kube: ApiServer, tmp_path):
    (tmp_path / "one").write_text("current-context: test")
    both = f"{tmp_path / 'one'}{os.pathsep}{kube.kubeconfig()}"

    assert run(both).exit_code == 0


def test_a_list_loads_no_client_no_types_and_no_mathematics():
    heavy = ("kubernetes", "kopf", "numpy", "scipy", "pydantic", "aiohttp")
    program = (
        "import sys, modelrollout.cli, modelrollout.cli.rollouts;"
        f"print([each for each in {heavy!r} if each in sys.modules])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_process_ends_with_the_code_and_without_a_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "modelrollout", "get", "ranker"],
        env={**os.environ, "KUBECONFIG": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 5
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
