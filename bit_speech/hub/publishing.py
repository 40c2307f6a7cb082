"""What would be uploaded, laid out in a folder before anything is, and the upload itself."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Files that run code when they are opened, or that nobody should find on the Hub.
UNSAFE_ENDINGS = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy")


@dataclass(frozen=True)
class Publication:
    """A folder that is ready to be uploaded, and what there is to say about it.

    Attributes:
        folder (`Path`): holds every file, exactly as it would be uploaded.
        repo_id (`str`): `owner/name` on the Hub.
        repo_type (`str`): `"model"`, `"dataset"` or `"space"`.
        problems (`tuple[str, ...]`): what must be put right before an upload, each with its remedy.
        notes (`tuple[str, ...]`): what the owner of the data should know.
        left_out (`tuple[str, ...]`): files of the source that stay where they are.
        checked (`dict[str, tuple[int, ...]]`): outputs of the model and their shapes, from the run in a clean process.
    """

    folder: Path
    repo_id: str
    repo_type: str
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    checked: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, int]:
        """Every file with its size in bytes (`dict[str, int]`)."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in found}

    def to_dict(self) -> dict[str, Any]:
        """Give the plan as JSON can hold it.

        Returns:
            `dict`: all attributes and the files.
        """
        return {
            "repo_id": self.repo_id,
            "repo_type": self.repo_type,
            "folder": str(self.folder),
            "files": self.files,
            "left_out": list(self.left_out),
            "problems": list(self.problems),
            "notes": list(self.notes),
            "checked_in_clean_process": {name: list(shape) for name, shape in self.checked.items()},
        }

    def __str__(self) -> str:
        """Say it as a person reads it."""
        files = self.files
        lines = [f"{self.repo_type} {self.repo_id}: {len(files)} files, {sum(files.values()) / 1e6:.2f} MB"]
        lines += [f"  {size:>12,}  {name}" for name, size in files.items()]
        if self.left_out:
            lines.append(f"stays here: {', '.join(self.left_out)}")
        if self.checked:
            shapes = ", ".join(f"{name} {shape}" for name, shape in self.checked.items())
            lines.append(f"runs in a clean process, without this package: {shapes}")
        lines += [f"note: {note}" for note in self.notes]
        lines += [f"before an upload: {problem}" for problem in self.problems]
        return "\n".join([*lines, f"all of it lies in {self.folder}"])


def check_repo_id(repo_id: str) -> str:
    """Check the name of a repository before any work is done.

    Args:
        repo_id (`str`): `owner/name`.

    Returns:
        `str`: the same.

    Raises:
        ValueError: when the Hub would not take it.

    Example:
        >>> check_repo_id("lab/p01-decoder")
        'lab/p01-decoder'
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"--repo_id {repo_id!r}: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"--repo_id {repo_id!r} needs an owner: give owner/name, such as my-lab/{repo_id}")
    return repo_id


def fresh_folder(folder: str | os.PathLike[str]) -> Path:
    """Make an empty folder to lay files out in.

    Args:
        folder (`str`): is made; may exist when it is empty.

    Returns:
        `Path`: the folder.

    Raises:
        FileExistsError: when it holds something.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is not empty; nothing was touched: choose another --output_dir")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def push(publication: Publication, public: bool = False, message: str = "Publish with bit-speech") -> str:
    """Upload a publication; the repository is made when it does not exist.

    Args:
        publication (`Publication`): without problems.
        public (`bool`, defaults to False): whether a repository that is made now is open to everyone. One that exists
            keeps its visibility.
        message (`str`): of the commit.

    Returns:
        `str`: address of the commit.

    Raises:
        ValueError: when the publication has problems, or holds a file that runs code when it is opened.
        PermissionError: when the Hub does not know who is asking, or refuses.
        ConnectionError: when it cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    unsafe = [name for name in publication.files if name.endswith(UNSAFE_ENDINGS) and not _is_language_model(name)]
    problems = [*publication.problems, *(f"{name} may run code when it is opened: leave it out" for name in unsafe)]
    if problems:
        raise ValueError("nothing was uploaded. " + "; ".join(problems))
    hub = HfApi(library_name="bit-speech")
    settings: dict[str, Any] = {"space_sdk": "gradio"} if publication.repo_type == "space" else {}
    try:
        hub.whoami()
        hub.create_repo(
            publication.repo_id, repo_type=publication.repo_type, private=not public, exist_ok=True, **settings
        )
        commit = hub.upload_folder(
            folder_path=publication.folder,
            repo_id=publication.repo_id,
            repo_type=publication.repo_type,
            commit_message=message,
        )
    except (LocalTokenNotFoundError, HfHubHTTPError) as error:
        raise PermissionError(
            f"the Hub refused {publication.repo_id}: {error}. Log in (`hf auth login`) as someone who may write there"
        ) from error
    except Exception as error:
        # The library behind huggingface_hub is httpx in its first versions and httpx2 in later ones.
        if not (isinstance(error, ConnectionError) or type(error).__module__.startswith("httpx")):
            raise
        raise ConnectionError(
            f"the Hub cannot be reached ({error}); the folder is ready in {publication.folder}: give the command again "
            "when this machine is online"
        ) from error
    return str(commit.commit_url)


def _is_language_model(name: str) -> bool:
    """The n-gram language model of a decoder is a memory-mapped table of this package, not a pickle."""
    return name == "decoder/language_model.bin"
