"""A finished model folder to Hugging Face or ModelScope, through their own libraries.

What the hub holds is listed before, so that only what differs is sent, and after, so that what
arrived is known to be what was sent.
"""

import hashlib
import io
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medqa.errors import ConfigError, StepError, TargetError
from medqa.files import sha256
from medqa.hub.catalogue import Hub
from medqa.hub.transfer import causes, foreign, status_of
from medqa.paths import shown

TOKENS: Mapping[Hub, str] = {"huggingface": "HF_TOKEN", "modelscope": "MODELSCOPE_API_TOKEN"}
"""Where the token is looked for first; then where each library's own login left it."""

_ENDPOINTS: Mapping[Hub, str] = {
    "huggingface": "HF_ENDPOINT",
    "modelscope": "MODELSCOPE_ENDPOINT",
}
_WEIGHTS = re.compile(r"\.(safetensors|bin|gguf|pt|index\.json)$")


@dataclass(frozen=True)
class Repository:
    """A model repository and who may send to it."""

    id: str
    hub: Hub
    token: str

    @property
    def endpoint(self) -> str | None:
        """The address that the caller chose; the libraries read the variable only once."""
        return os.environ.get(_ENDPOINTS[self.hub], "").rstrip("/") or None


@dataclass(frozen=True)
class Held:
    """A file as a hub holds it: its SHA-256, or for a small one of Hugging Face its git hash."""

    size: int
    sha256: str | None
    git: str | None

    def is_file(self, file: Path) -> bool:
        """Says whether it is `file`, byte by byte."""
        if self.size != file.stat().st_size:
            return False
        if self.sha256:
            return self.sha256 == sha256(file)
        return self.git is not None and self.git == _git_hash(file)


@dataclass(frozen=True)
class Content:
    """What a repository holds."""

    private: bool
    files: Mapping[str, Held]


def upload(folder: Path, names: Sequence[str], repository: str, hub: Hub, private: bool) -> None:
    """Sends files that the hub has not, and checks that it then has them all.

    Args:
        folder: Where they are.
        names: Which of its files.
        repository: ``owner/name``; made when it is not there.
        hub: Where to.
        private: Only the owner may see it. A repository that everybody sees is then refused.

    Raises:
        ConfigError: There is no token, or the repository is public and should be private.
        TargetError: The repository holds other weights, which would be loaded with these.
        StepError: The hub refused, could not be reached, or holds something else afterwards.
    """
    target = Repository(repository, hub, _token(hub))
    try:
        content = _LISTING[hub](target)
        send = _missing(folder, names, content)
        if content is not None:
            _require_fit(target, names, content, private=private)
        if not send:
            sys.stdout.write(f"up to date: {hub} {repository}\n")
            return
        if content is None:
            _CREATING[hub](target, private)
        size = sum((folder / name).stat().st_size for name in send)
        sys.stdout.write(f"sending {len(send)} files, {size / 1e9:.2f} GB, to {hub} {repository}\n")
        sys.stdout.flush()
        _SENDING[hub](target, folder, send)
        wrong = _missing(folder, names, _LISTING[hub](target))
    except Exception as error:
        if not (foreign(error) or isinstance(error, (RuntimeError, ValueError))):
            raise
        raise _explained(error, target) from error
    if wrong:
        raise StepError(
            f"{hub} {repository} does not hold {', '.join(wrong)} as sent; run this again"
        )
    sys.stdout.write(f"{hub} {repository}: {len(names)} files of {shown(folder)}, checked\n")


def _token(hub: Hub) -> str:
    """Returns the token of the environment, or of the library's own login."""
    token = os.environ.get(TOKENS[hub], "").strip()
    if not token and hub == "huggingface":
        from huggingface_hub import get_token

        token = get_token() or ""
    elif not token:
        from modelscope_hub.config import HubConfig

        token = HubConfig().token or ""
    if not token:
        raise ConfigError(
            f"push to {hub}",
            [f"no token that may write; make one on the hub's site and set {TOKENS[hub]}"],
        )
    return token


def _missing(folder: Path, names: Sequence[str], content: Content | None) -> list[str]:
    held = content.files if content else {}
    return [name for name in names if name not in held or not held[name].is_file(folder / name)]


def _require_fit(
    target: Repository, names: Sequence[str], content: Content, *, private: bool
) -> None:
    if private and not content.private:
        raise ConfigError(
            f"push to {target.hub}",
            [
                f"{target.id} is there and everybody may read it, but private is true; make it "
                "private on the hub's site, take another repo, or say private=false"
            ],
        )
    stale = [name for name in content.files if _WEIGHTS.search(name) and name not in names]
    if stale:
        raise TargetError(
            f"{target.hub} {target.id} holds {', '.join(stale)}, which this model has not and "
            "which would be loaded with it; delete them there, or take another repo"
        )


def _git_hash(file: Path) -> str:
    """Returns the id that git gives to the content (``git hash-object``)."""
    content = file.read_bytes()
    header = f"blob {len(content)}\0".encode()
    return hashlib.sha1(header + content, usedforsecurity=False).hexdigest()


def _huggingface(target: Repository) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=target.endpoint, token=target.token, library_name="medqa")


def _huggingface_listing(target: Repository) -> Content | None:
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = _huggingface(target)
    try:
        info = api.repo_info(target.id, repo_type="model")
    except RepositoryNotFoundError as error:
        if error.response.status_code != 404:  # 401: the token is not known
            raise
        return None
    entries = api.list_repo_tree(target.id, recursive=True, repo_type="model")
    files = {
        e.path: Held(e.size, e.lfs.sha256 if e.lfs else None, e.blob_id)
        for e in entries
        if isinstance(e, RepoFile)
    }
    return Content(bool(info.private), files)


def _huggingface_create(target: Repository, private: bool) -> None:
    _huggingface(target).create_repo(target.id, repo_type="model", private=private)


def _huggingface_send(target: Repository, folder: Path, names: Sequence[str]) -> None:
    """Sends all in one commit: nobody ever sees half a model."""
    from huggingface_hub import CommitOperationAdd

    files = [CommitOperationAdd(path_in_repo=n, path_or_fileobj=folder / n) for n in names]
    _huggingface(target).create_commit(
        target.id, files, commit_message=f"{folder.name}, by medqa", repo_type="model"
    )


def _modelscope(target: Repository) -> Any:
    os.environ.setdefault("MODELSCOPE_LOG_LEVEL", "CRITICAL")
    from modelscope_hub import HubApi

    return HubApi(endpoint=target.endpoint, token=target.token)


def _modelscope_listing(target: Repository) -> Content | None:
    from modelscope_hub.constants import Visibility
    from modelscope_hub.errors import NotExistError

    api = _modelscope(target)
    try:
        info = api.get_repo(target.id, "model")
    except NotExistError:
        return None
    try:
        entries = api.list_repo_files(target.id, "model", revision="master")
    except NotExistError:  # nothing was ever sent to it, so it has no branch
        entries = []
    files = {e.path: Held(e.size, e.sha256, None) for e in entries if e.type == "blob"}
    return Content(info.visibility == Visibility.PRIVATE, files)


def _modelscope_create(target: Repository, private: bool) -> None:
    _modelscope(target).create_repo(
        target.id, "model", visibility="private" if private else "public"
    )


def _modelscope_send(target: Repository, folder: Path, names: Sequence[str]) -> None:
    """Sends all in one commit, without the library's report on what it did."""
    from modelscope_hub.errors import APIError, StorageError

    failures: list[str] = []

    def follow(event: Mapping[str, Any]) -> None:
        failures.extend([str(event["error"])] if event.get("error") else [])

    try:
        with redirect_stdout(io.StringIO()):
            _modelscope(target).upload_folder(
                target.id,
                "model",
                folder,
                commit_message=f"{folder.name}, by medqa",
                allow_patterns=list(names),
                use_cache=False,  # it would write into the folder
                disable_tqdm=not sys.stderr.isatty(),
                progress_callback=follow,
            )
    except StorageError as error:  # it says how many files failed, and not why
        status = re.search(r"\[(\d{3})\]", " ".join(failures))
        raise APIError(
            failures[-1] if failures else str(error),
            status_code=int(status[1]) if status else None,
        ) from error


_LISTING: Mapping[Hub, Callable[[Repository], Content | None]] = {
    "huggingface": _huggingface_listing,
    "modelscope": _modelscope_listing,
}
_CREATING: Mapping[Hub, Callable[[Repository, bool], None]] = {
    "huggingface": _huggingface_create,
    "modelscope": _modelscope_create,
}
_SENDING: Mapping[Hub, Callable[[Repository, Path, Sequence[str]], None]] = {
    "huggingface": _huggingface_send,
    "modelscope": _modelscope_send,
}


def _explained(error: Exception, target: Repository) -> StepError:
    """Returns one line with the cure for whatever a hub's library raised."""
    chain = list(causes(error))
    status = next((s for s in map(status_of, chain) if s), None)
    if any(type(e).__name__ == "OfflineModeIsEnabled" for e in chain):
        cause, cure = "HF_HUB_OFFLINE forbids it", "unset HF_HUB_OFFLINE"
    elif isinstance(error, ValueError) and not status:  # what the library thinks of the name
        cause, cure = _said(error, target), "take another repo"
    elif status in (401, 403):
        cause = f"access refused (HTTP {status})"
        cure = (
            f"see that the token in {TOKENS[target.hub]} may write and that "
            f"{target.id.partition('/')[0]} is you or a group of yours"
        )
    elif status == 404:
        cause, cure = "there is no such owner or name (HTTP 404)", "see repo"
    elif status:
        cause, cure = f"the hub answers HTTP {status}: {_said(error, target)}", "try again later"
    elif any(re.search("Connect|Network|Timeout", type(e).__name__) for e in chain):
        cause = "the hub does not answer"
        cure = f"run this again, or name a mirror in {_ENDPOINTS[target.hub]}"
    else:
        cause, cure = _said(chain[-1], target), "run this again; what has arrived is not sent twice"
    return StepError(f"cannot push to {target.hub} {target.id}: {cause}; {cure}")


def _said(error: BaseException, target: Repository) -> str:
    """Returns the first line of a message, in which a token would not be shown."""
    return str(error).replace(target.token, "[token]").partition("\n")[0][:200]
