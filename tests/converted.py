"""Trials in a folder, as a converter leaves them."""

from bit_speech.data.conversion import ShardPlan, SourceDescription, run_conversion

FACTS = {"bin_size_ms": 20.0, "species": "human", "task": "attempted_speech", "source": "s", "licence": "CC0-1.0"}


def convert(rows, folder):
    """Write test trials below a folder; gives the place of the data set."""
    (folder / "raw").write_text("raw")
    rows = [{**FACTS, **row} for row in rows]
    plan = ShardPlan("test", rows[0]["session_id"], {"raw": folder / "raw"}, len(rows), lambda: iter(rows))
    source = SourceDescription("t", "T", "CC0-1.0", "T.")
    channels = rows[0]["features"].shape[1]
    run_conversion(folder / "trials", [plan], num_channels=channels, source=source, progress=False)
    return folder / "trials"
