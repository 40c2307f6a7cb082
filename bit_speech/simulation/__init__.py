"""Simulated participants with known truth, and the limit that any decoder of their data is held against."""

from .configuration import PRESETS, SIMULATOR_VERSION, SimulationConfig
from .intracortical import SimulatedParticipant, SimulatedTrial
from .text import load_sentences, normalize_sentence, pronounce
from .writers import write_brain_to_text_25

__all__ = [
    "PRESETS",
    "SIMULATOR_VERSION",
    "SimulatedParticipant",
    "SimulatedTrial",
    "SimulationConfig",
    "load_sentences",
    "normalize_sentence",
    "pronounce",
    "write_brain_to_text_25",
]
