"""Trials in a folder, as a converter leaves them."""

from itertools import groupby

from bit_speech.data.conversion import ShardPlan, SourceDescription, run_conversion

FACTS = {"bin_size_ms": 20.0, "species": "human", "task": "attempted_speech", "source": "s", "licence": "CC0-1.0"}


def place(row):
    return row["split"], row["session_id"]


def convert(rows, folder, name="trials"):
    """Write trials of any splits and sessions below a folder; gives the place of the data set."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "raw").write_text("raw")
    plans = []
    for (split, session), found in groupby(sorted(rows, key=place), key=place):
        part = [{**FACTS, **row} for row in found]
        plans.append(ShardPlan(split, session, {"raw": folder / "raw"}, len(part), lambda part=part: iter(part)))
    source = SourceDescription("t", "T", "CC0-1.0", "T.")
    channels = rows[0]["features"].shape[1]
    run_conversion(folder / name, plans, num_channels=channels, source=source, progress=False)
    return folder / name
