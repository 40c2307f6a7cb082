"""The stand-in of the Hub for this process: whatever is pushed goes there, and nowhere else."""

import huggingface_hub
import pytest

from .fake_hub import FakeHub


@pytest.fixture(scope="module")
def hub():
    with FakeHub() as hub, pytest.MonkeyPatch.context() as patch:
        for name, value in (("ENDPOINT", hub.endpoint), ("HF_HUB_OFFLINE", False), ("HF_HUB_DISABLE_XET", True)):
            patch.setattr(huggingface_hub.constants, name, value)
        patch.setenv("HF_TOKEN", "hf_stand_in")
        yield hub
