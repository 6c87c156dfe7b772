"""
Examples are the same in every run, and none has a deadline: a busy machine is not a failure.

`HYPOTHESIS_PROFILE=explore` draws new ones each time.
"""

import os

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
