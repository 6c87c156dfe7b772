"""MLServer's scikit-learn runtime, which can be told to fail or to dawdle now and then.

Only what is asked for differs from the stock runtime: the rest of a version's latency and of its
answers is that of the real server. A version without faults runs the same code with shares of zero.
"""

import asyncio
import os
import random

import numpy as np
from mlserver.errors import MLServerError
from mlserver.types import InferenceRequest, InferenceResponse
from mlserver_sklearn import SKLearnModel

PIXELS = 64


class DigitsModel(SKLearnModel):  # type: ignore[misc, unused-ignore]
    """ERROR_RATE of the requests fail with 500; TAIL_SHARE of them take TAIL_SECONDS more."""

    async def load(self) -> bool:
        self.error_rate = float(os.environ.get("ERROR_RATE", "0"))
        self.tail_share = float(os.environ.get("TAIL_SHARE", "0"))
        self.tail_seconds = float(os.environ.get("TAIL_SECONDS", "0"))
        self.random = random.Random()  # noqa: S311  it makes faults
        loaded: bool = await super().load()
        # The first prediction of a process is slow; better that no user waits for it.
        self._model.predict(np.zeros((1, PIXELS)))
        return loaded

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        if self.random.random() < self.tail_share:
            await asyncio.sleep(self.tail_seconds)
        if self.random.random() < self.error_rate:
            # MLServer's own InferenceError would be a 400, the user's fault.
            raise MLServerError("injected fault", 500)
        return await super().predict(payload)
