"""Serve the digits model with MLServer; the environment says which version and which quality.

MODEL_VERSION (default v1), MODEL_QUALITY (good, poor or retrained), MODELS (where the files are), HTTP_PORT,
GRPC_PORT, METRICS_PORT, and the faults of `mlserver_runtime`.
"""

import asyncio
import os
from pathlib import Path

from mlserver import MLServer, ModelSettings, Settings
from mlserver.settings import ModelParameters
from mlserver.utils import install_uvloop_event_loop

from workloads.mlserver_runtime import DigitsModel

# Longer than a gateway keeps an idle connection: otherwise the server closes one just when the
# gateway sends a request on it, and the user gets a 503 that is nobody's fault.
KEEP_ALIVE_SECONDS = 4000


def server_settings() -> Settings:
    """A small server: no worker processes, no compression, no access log."""
    settings = Settings(
        debug=False,
        parallel_workers=0,
        gzip_enabled=False,
        load_models_at_startup=False,
        http_port=int(os.environ.get("HTTP_PORT", "8080")),
        grpc_port=int(os.environ.get("GRPC_PORT", "8081")),
        metrics_port=int(os.environ.get("METRICS_PORT", "8082")),
    )
    settings._custom_rest_server_settings = {"timeout_keep_alive": KEEP_ALIVE_SECONDS}  # noqa: SLF001
    return settings


def model_settings() -> ModelSettings:
    quality = os.environ.get("MODEL_QUALITY", "good")
    model = Path(os.environ.get("MODELS", "/models")) / f"{quality}.joblib"
    if not model.exists():
        raise SystemExit(f"MODEL_QUALITY is {quality}, but there is no {model}")
    version = os.environ.get("MODEL_VERSION", "v1")
    return ModelSettings(
        name="digits",
        implementation=DigitsModel,
        parameters=ModelParameters(uri=str(model), version=version),
    )


async def serve() -> None:
    await MLServer(server_settings()).start([model_settings()])


if __name__ == "__main__":
    install_uvloop_event_loop()
    asyncio.run(serve())
