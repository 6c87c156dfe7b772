"""
Examples are the same in every run, and none has a deadline: a busy machine is not a failure.

`HYPOTHESIS_PROFILE=explore` draws new ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from kube_apiserver import ApiServer, api_server

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="session")
def kube(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """A real API server with our CRDs and nothing else, for all tests; a namespace of one's own keeps them apart."""
    with api_server(tmp_path_factory.mktemp("kube"), users=("ada", "eve")) as server:
        server.install_crds()
        yield server
