"""Both hubs through their own libraries: listing, fetching, and what their errors mean."""

import errno
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medqa.errors import DownloadError
from medqa.hub.catalogue import HUBS, Hub

Kind = Literal["model", "dataset"]

_LIBRARIES = ("httpx", "huggingface_hub", "modelscope_hub", "requests", "urllib3")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub lists it; `sha256` is None where the hub keeps none (small text files)."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Repository:
    """Where to fetch from."""

    id: str
    kind: Kind
    hub: Hub

    @property
    def name(self) -> str:
        """The id without its owner."""
        return self.id.rpartition("/")[2]

    @property
    def elsewhere(self) -> str:
        """The option that asks the other hub."""
        return "--hub " + next(h for h in HUBS if h != self.hub)


def listing(repository: Repository) -> tuple[str, list[RemoteFile]]:
    """Returns the revision and the files of a repository."""
    return _LISTING[repository.hub](repository)


def fetch(repository: Repository, revision: str, files: list[RemoteFile], folder: Path) -> None:
    """Fetches `files` into `folder`, going on where an earlier call was cut off."""
    _FETCHING[repository.hub](repository, revision, files, folder)


def _huggingface_listing(repository: Repository) -> tuple[str, list[RemoteFile]]:
    from huggingface_hub.hf_api import HfApi, RepoFile

    api = HfApi(endpoint=_endpoint("HF_ENDPOINT"), library_name="medqa")
    revision = api.repo_info(repository.id, repo_type=repository.kind).sha or "main"
    tree = api.list_repo_tree(
        repository.id, recursive=True, revision=revision, repo_type=repository.kind
    )
    return revision, [
        RemoteFile(f.path, f.size, f.lfs.sha256 if f.lfs else None)
        for f in tree
        if isinstance(f, RepoFile)
    ]


def _huggingface_fetch(
    repository: Repository, revision: str, files: list[RemoteFile], staging: Path
) -> None:
    """Fetches file by file with the library's own transfer, which goes on from a given byte.

    Its `snapshot_download` starts every file anew since version 1.31 (partial files carry a random
    name): a cut at 11 of 12 GB would lose them all.
    """
    from huggingface_hub.file_download import hf_hub_url, http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # public, unlisted

    headers = build_hf_headers(library_name="medqa") | {"Accept-Encoding": "identity"}
    for file in files:
        whole, partial = staging / file.path, staging / f"{file.path}.incomplete"
        if whole.is_file():
            continue
        url = hf_hub_url(
            repository.id,
            file.path,
            repo_type=repository.kind,
            revision=revision,
            endpoint=_endpoint("HF_ENDPOINT"),
        )
        partial.touch()
        with partial.open("r+b") as out:
            done = out.seek(0, os.SEEK_END)
            if done > file.size:
                done = out.seek(0)
                out.truncate()
            http_get(
                url,
                out,
                resume_size=done,
                headers=headers,
                expected_size=file.size,
                displayed_filename=file.path,
            )
        partial.replace(whole)


def _modelscope_listing(repository: Repository) -> tuple[str, list[RemoteFile]]:
    os.environ.setdefault("MODELSCOPE_LOG_LEVEL", "ERROR")
    from modelscope_hub import HubApi

    revision = "master"  # its API lists a branch; the hashes in our record pin the content
    files = HubApi(endpoint=_endpoint("MODELSCOPE_ENDPOINT")).list_repo_files(
        repository.id, repository.kind, revision=revision
    )
    return revision, [RemoteFile(f.path, f.size, f.sha256) for f in files if f.type == "blob"]


def _modelscope_fetch(
    repository: Repository, revision: str, files: list[RemoteFile], staging: Path
) -> None:
    from modelscope_hub import HubApi

    HubApi(endpoint=_endpoint("MODELSCOPE_ENDPOINT")).download_repo(
        repository.id,
        repository.kind,
        revision=revision,
        local_dir=staging,
        allow_patterns=[f.path for f in files],
    )


def _endpoint(variable: str) -> str | None:
    """Returns the mirror that the caller chose; the libraries read the variable only once."""
    return os.environ.get(variable, "").rstrip("/") or None


_LISTING: dict[Hub, Callable[[Repository], tuple[str, list[RemoteFile]]]] = {
    "huggingface": _huggingface_listing,
    "modelscope": _modelscope_listing,
}
_FETCHING: dict[Hub, Callable[[Repository, str, list[RemoteFile], Path], None]] = {
    "huggingface": _huggingface_fetch,
    "modelscope": _modelscope_fetch,
}


def explained(error: Exception, repository: Repository) -> DownloadError:
    """Returns one line with the cure for whatever a hub's library raised."""
    what = f"{repository.kind} {repository.id} on {repository.hub}"
    chain = list(causes(error))
    status = next((s for s in map(status_of, chain) if s), None)
    if any(isinstance(e, OSError) and e.errno in _DISK_FULL for e in chain):
        cause = "the disk is full"
        cure = "free some space, then run this again, it goes on where it stopped"
    elif os.environ.get("HF_HUB_OFFLINE", "0").upper() in {"1", "ON", "YES", "TRUE"} and (
        repository.hub == "huggingface"
    ):
        cause, cure = "HF_HUB_OFFLINE forbids it", "unset HF_HUB_OFFLINE"
    elif status in (401, 403):
        token = "HF_TOKEN" if repository.hub == "huggingface" else "MODELSCOPE_API_TOKEN"
        cause = f"access refused (HTTP {status}): it is private or gated, or there is no such name"
        cure = f"set {token} to a token that may read it, or run again with {repository.elsewhere}"
    elif status == 404:
        cause, cure = "there is no such name (HTTP 404)", f"run again with {repository.elsewhere}"
    elif status:
        cause, cure = f"the hub answers HTTP {status}", f"try later, or with {repository.elsewhere}"
    else:
        silent = any(re.search("Connect|Network|Timeout", type(e).__name__) for e in chain)
        cause = "the hub does not answer" if silent else str(chain[-1]).partition("\n")[0][:200]
        variable = "HF_ENDPOINT" if repository.hub == "huggingface" else "MODELSCOPE_ENDPOINT"
        cure = (
            "run this again, it goes on where it stopped; if the hub cannot be reached from here, "
            f"with {repository.elsewhere}, or name a mirror in {variable}"
        )
    return DownloadError(f"cannot fetch {what}: {cause}; {cure}")


def foreign(error: Exception) -> bool:
    """Says whether a hub's library or the system raised it, and not a mistake of ours."""
    package = type(error).__module__.partition(".")[0]
    return isinstance(error, OSError) or package in _LIBRARIES


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, those of single files inside it, and what caused it."""
    yield error
    for inner in getattr(error, "failed_files", {}).values():
        yield from causes(inner)
    if error.__cause__ is not None:
        yield from causes(error.__cause__)


def status_of(error: BaseException) -> int | None:
    """Returns the HTTP status that a hub's library holds in an error."""
    status = getattr(error, "status_code", None)
    if status is None:
        status = getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None
