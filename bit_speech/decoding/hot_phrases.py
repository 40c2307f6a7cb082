"""Words and phrases that are expected more than the language model knows, as an automaton over words."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from .lexicon import Lexicon
from .search_graph import HotPhrases


def hot_phrases(boosts: Mapping[str, float], lexicon: Lexicon) -> HotPhrases:
    """Make the automaton of boosted phrases.

    The whole boost is given with the first word, so that the phrase survives pruning from its first phoneme on, and
    taken back where it breaks off.

    Args:
        boosts (`dict[str, float]`): phrase, and what each occurrence adds to the score.
        lexicon (`Lexicon`): the words that can be decoded.

    Returns:
        `HotPhrases`: the automaton; with state 0 alone when there are no phrases.

    Raises:
        ValueError: when a boost is not finite, or a word is not in the lexicon.
    """
    index = {word: number for number, word in enumerate(lexicon.words)} if boosts else {}
    branches: list[dict[int, int]] = [{}]
    complete = [0.0]
    held = [0.0]
    for phrase, boost in boosts.items():
        words = phrase.split()
        if not words or not math.isfinite(boost):
            raise ValueError(f"The boost of hotword {phrase!r} is {boost}; expected words and a finite number.")
        state = 0
        for position, word in enumerate(words):
            if word not in index:
                raise ValueError(f"Hotword {phrase!r}: {word!r} is not in the lexicon; add it with Lexicon.with_words.")
            if index[word] not in branches[state]:
                branches[state][index[word]] = len(branches)
                branches.append({})
                complete.append(0.0)
                held.append(0.0)
            state = branches[state][index[word]]
            if position + 1 < len(words):
                held[state] = max(held[state], boost)
        complete[state] += boost
    first = np.zeros(len(lexicon), dtype=np.float32)
    begin, steps = [0], []
    for state, branch in enumerate(branches):
        for number, following in branch.items():
            gain = complete[following] + held[following] - held[state]
            # A state from which nothing goes on is the state outside every phrase.
            steps.append((number, following if branches[following] else 0, gain))
            if state == 0:
                first[number] = gain
        begin.append(len(steps))
    return HotPhrases(
        first=first,
        begin=np.array(begin, dtype=np.int32),
        words=np.array([step[0] for step in steps], dtype=np.int32),
        following=np.array([step[1] for step in steps], dtype=np.int32),
        gains=np.array([step[2] for step in steps], dtype=np.float32),
        held=np.array(held, dtype=np.float32),
    )
