"""What the examples and the pages show of manifests, whole or in part, is what a real API server takes."""

from __future__ import annotations

import json
import os
import re
import textwrap
from pathlib import Path

import pytest
import yaml

from modelrollout.api.v1alpha1 import API_VERSION, KIND

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```ya?ml\n(.*?)^\1```", flags=re.DOTALL | re.MULTILINE)
OF_OTHER_TOOLS = {"argoproj.io", "kustomize.toolkit.fluxcd.io", "helm.toolkit.fluxcd.io"}
"""API groups whose CRDs are not here: that it is YAML is all that is checked."""
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))


def blocks(page):
    return [textwrap.dedent(code) for _, code in BLOCK.findall(page.read_text())]


def manifests():
    """Each whole manifest, with where it stands."""
    for path in EXAMPLES:
        for index, document in enumerate(yaml.safe_load_all(path.read_text())):
            yield f"{path.relative_to(ROOT)}, {index}", document
    for page in PAGES:
        for index, code in enumerate(blocks(page)):
            for document in yaml.safe_load_all(code):
                yield f"{page.relative_to(ROOT)}, block {index}", document


def is_whole(document):
    return isinstance(document, dict) and {"apiVersion", "kind"} <= document.keys()


SMALLEST = {
    "candidate": {"deployment": "ranker-v2"},
    "stable": {"deployment": "ranker-v1"},
    "port": 8080,
    "traffic": {"gatewayAPI": {"route": "ranker"}},
    "analysis": {"guardrails": [{"name": "count", "preset": "mlserver/errors"}]},
}
SHADOW = {
    "intent": "Change",
    "idempotent": True,
    "paths": ["/v2/models"],
    "outputs": [{"name": "label", "path": "$.label", "exact": {}}],
}


def parts():
    """Each part of a ModelRollout's spec, in a spec that is whole."""
    for page in PAGES:
        for index, code in enumerate(blocks(page)):
            for document in yaml.safe_load_all(code):
                spec = completed(document)
                if spec is not None:
                    yield f"{page.relative_to(ROOT)}, part {index}", spec


def completed(part):
    """A spec with this part in it; None where it is a part of something else."""
    if isinstance(part, list) and all(isinstance(each, dict) and "name" in each for each in part):
        part = {"guardrails": part}
    if not isinstance(part, dict) or is_whole(part):
        return None
    part = part.get("spec", part)
    if "guardrails" in part:
        part = {"analysis": {"guardrails": part["guardrails"]}}
    if not part.keys() <= SMALLEST.keys() | {"strategy", "shadow", "scaling"}:
        return None
    spec = SMALLEST | part
    spec["traffic"] = SMALLEST["traffic"] | spec["traffic"]
    if any("mirror" in step for step in spec.get("strategy", {}).get("steps", [])):
        spec.setdefault("shadow", SHADOW)
    return spec


WHOLE = {
    f"{place}: {document['kind']}": document
    for place, document in manifests()
    if is_whole(document)
}


@pytest.fixture(scope="module")
def server(kubectl, crd):  # noqa: ARG001  # the CRD is in it
    """The API server with the CRDs of Gateway API, as the test cluster has them."""
    home = Path(os.environ.get("CLUSTER_HOME", "~/.cache/modelrollout-cluster")).expanduser()
    rendered = sorted(home.glob("manifests/*/10-crds.yaml"), key=lambda x: x.stat().st_mtime)
    assert rendered, "no CRDs of Gateway API: run `make cluster-build`"
    wanted = {"HTTPRoute", "Gateway"}
    crds = [
        each
        for each in yaml.load_all(rendered[-1].read_text(), yaml.CSafeLoader)
        if each and each["kind"] == "CustomResourceDefinition"
        if each["spec"]["names"]["kind"] in wanted
    ]
    body = {"apiVersion": "v1", "kind": "List", "items": crds}
    done = kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(body))
    assert done.returncode == 0, done.stderr
    names = [f"crd/{each['metadata']['name']}" for each in crds]
    done = kubectl("wait", "--for=condition=Established", *names, "--timeout=30s")
    assert done.returncode == 0, done.stderr
    for namespace in {each["metadata"].get("namespace") for each in WHOLE.values()} - {None}:
        kubectl("create", "namespace", namespace)
    return kubectl


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_of_yaml_is_yaml(page):
    for code in blocks(page):
        list(yaml.safe_load_all(code))


def test_there_is_something_to_check():
    kinds = {document["kind"] for document in WHOLE.values()}

    assert {"ModelRollout", "Deployment", "HTTPRoute"} <= kinds
    assert len(WHOLE) > 15


def tried(server, documents):
    """What the API server says against some of them; each is tried, whatever the others are."""
    body = {"apiVersion": "v1", "kind": "List", "items": documents}
    done = server(
        "create", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(body)
    )
    return [
        line
        for line in done.stderr.splitlines()
        if line.strip() and not re.search(r'namespaces "\S+" already exists', line)
    ]


def test_the_api_server_takes_every_whole_manifest(server):
    known = [
        document
        for document in WHOLE.values()
        if document["apiVersion"].split("/")[0] not in OF_OTHER_TOOLS
    ]

    assert tried(server, known) == []


def test_the_api_server_takes_every_part_of_a_spec(server):
    head = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "r"}}
    specs = dict(parts())

    assert len(specs) > 8
    assert tried(server, [head | {"spec": spec} for spec in specs.values()]) == []


def test_the_chart_takes_the_values_that_the_pages_show(helm):
    values = yaml.safe_load((ROOT / "charts" / "modelrollout" / "values.yaml").read_text())
    shown = [
        document
        for page in PAGES
        for code in blocks(page)
        for document in yaml.safe_load_all(code)
        if isinstance(document, dict) and document.keys() & {"webhooks", "providers"}
    ]

    assert len(shown) > 1
    for document in shown:
        assert document.keys() <= values.keys()
        done = helm(
            "template",
            str(ROOT / "charts" / "modelrollout"),
            "--values=-",
            stdin=json.dumps(
                {"providers": {"default": {"url": "http://prometheus:9090"}}} | document
            ),
        )
        assert done.returncode == 0, done.stderr


def test_a_manifest_with_a_wrong_field_would_be_seen(server):
    document = next(each for each in WHOLE.values() if each["kind"] == "HTTPRoute")
    wrong = document | {"spec": document["spec"] | {"backends": []}}

    assert any("backends" in line for line in tried(server, [wrong]))
