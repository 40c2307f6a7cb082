"""Simulated participants with known truth, and the limit that any decoder of their data is held against."""

from typing import TYPE_CHECKING, Any

from .configuration import PRESETS, SIMULATOR_VERSION, SimulationConfig
from .intracortical import SimulatedParticipant, SimulatedTrial
from .text import load_sentences, normalize_sentence, pronounce
from .writers import write_brain_to_text_24, write_brain_to_text_25

if TYPE_CHECKING:
    from .ideal_observer import IdealObserver

__all__ = [
    "PRESETS",
    "SIMULATOR_VERSION",
    "IdealObserver",
    "SimulatedParticipant",
    "SimulatedTrial",
    "SimulationConfig",
    "load_sentences",
    "normalize_sentence",
    "pronounce",
    "write_brain_to_text_24",
    "write_brain_to_text_25",
]


def __getattr__(name: str) -> Any:
    # The observer needs numba, which takes its time to import and which nobody needs to simulate.
    if name == "IdealObserver":
        from .ideal_observer import IdealObserver

        return IdealObserver
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
