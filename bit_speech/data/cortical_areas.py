"""Regions of the cortex that listens, as areas of the Glasser parcellation (HCP-MMP1)."""

from __future__ import annotations

_LANGUAGE_AREAS = {
    "AG": ("PFm", "PGs", "PGi", "TPOJ2", "TPOJ3"),
    "LTC": (
        "STSda", "STSva", "STGa", "TE1a", "TE2a", "TGv", "TGd", "A5", "STSdp", "STSvp", "PSL", "STV", "TPOJ1",
    ),
    "IFG": ("44", "45", "IFJa", "IFSp"),
    "MFG": ("55b",),
}  # fmt: skip
# Areas of the Glasser parcellation that make a region; the paper (arXiv 2510.21520) and its released code differ.
ROI_SETS: dict[str, dict[str, tuple[str, ...]]] = {
    "paper": {
        **_LANGUAGE_AREAS,
        "A1": ("A1",),
        "early_auditory": ("A1", "PBelt", "MBelt", "LBelt", "RI", "A4"),
        "language": tuple(area for areas in _LANGUAGE_AREAS.values() for area in areas),
    },
    "released_code": {
        "AG": ("PGi", "PGp", "PGs", "TPOJ2", "TPOJ3"),
        "LTC": ("TPOJ1", "STGa", "STSda", "STSdp", "A5", "STSva"),
        "A1": ("A1",),
        "late_language": (
            "A5", "44", "45", "IFJa", "IFSp", "PGi", "PGp", "PGs", "TPOJ1", "TPOJ2", "TPOJ3", "STGa", "STSda", "STSdp",
            "TA2", "STSva",
        ),
    },
}  # fmt: skip
