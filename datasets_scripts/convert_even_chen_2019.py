"""Even-Chen et al. 2019: two macaques reach after a delay; NWB -> trials.

    python -m datasets_scripts.convert_even_chen_2019 --input_dir raw/even_chen_2019 --output_dir trials

Source: doi:10.1371/journal.pcbi.1006808; data DANDI:000121 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from functools import partial

from datasets_scripts.convert_churchland_2012 import open_session
from datasets_scripts.corpora import Corpus, convert_corpus, run_command

CORPUS = Corpus(
    name="even_chen_2019",
    title="Even-Chen 2019, delayed reaching",
    citation=(
        "Even-Chen et al. 2019, doi:10.1371/journal.pcbi.1006808: macaques Jenkins and Reggie, arrays in PMd and M1."
    ),
    data="DANDI:000121",
    licence="CC-BY-4.0",
    access="dandi download DANDI:000121/0.220124.2156",
    files="**/*.nwb",
    species="macaque",
    hours="at most 23 h in 12 to 15 files of two monkeys, 192 channels (from a public count of bins)",
    layout=(
        "Read as Churchland 2012, which the same pipeline wrote: units with one electrode each, the electrode table, "
        "and the trials table. Spikes are known within trials only. Trials without a gap are joined."
    ),
)


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
