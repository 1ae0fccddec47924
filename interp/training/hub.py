"""Run folders on the Hugging Face Hub."""

from pathlib import Path
from typing import Any

from interp.errors import RunFolderError
from interp.training.checkpoints import CHECKPOINT
from interp.training.folder import is_finished


def push_run(folder: str | Path, repo: str, *, private: bool = True) -> str:
    """Upload a finished run folder to the model repository `repo` ("owner/name"), made if there is none; returns its address.

    Needs a token of an account (`hf auth login`). Raises `RunFolderError` for a run that is not finished, and when the Hub
    refuses or cannot be reached.
    """
    from huggingface_hub import HfApi

    folder = Path(folder)
    if not is_finished(folder):
        raise RunFolderError(
            f"pushing {folder}", "it holds no finished run", "Run the same command again: it goes on where it was"
        )
    api: Any = HfApi()
    try:
        address = api.create_repo(repo, private=private, exist_ok=True, repo_type="model")
        api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            repo_type="model",
            commit_message=f"Run {folder.name}",
            ignore_patterns=[CHECKPOINT, ".*", "wandb/*"],
        )
    except Exception as error:  # connection, permission and name errors of a dozen types
        raise RunFolderError(
            f"pushing {folder} to {repo!r}",
            f"the Hub cannot be reached or refuses ({_said(error)})",
            "Check the connection, the name owner/name and the token (hf auth login)",
        ) from error
    return str(address)


def pull_run(repo: str, folder: str | Path | None = None) -> Path:
    """Download a run from the Hub, into `folder` or the Hub's cache; `interp.load_model` opens the folder that is returned.

    Raises `RunFolderError` when it cannot be had, or is not a finished run.
    """
    from huggingface_hub import snapshot_download

    try:
        place = Path(snapshot_download(repo, repo_type="model", local_dir=folder))
    except Exception as error:
        raise RunFolderError(
            f"the run {repo!r}",
            f"it cannot be downloaded ({_said(error)})",
            "Check the connection and the name owner/name",
        ) from error
    if not is_finished(place):
        raise RunFolderError(f"the run {repo!r}", "the repository holds no finished run", "Name one that push_run filled")
    return place


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
