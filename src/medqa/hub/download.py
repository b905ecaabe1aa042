"""Downloads: resumed, verified, and put in place only when whole.

Files arrive in a hidden folder beside their place, where a run that was cut off goes on; each is
checked against the hash and size that the hub lists and those we know, and moved only then. The
record is written last.
"""

import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from medqa import provenance
from medqa.config import nearest
from medqa.errors import ConfigError, DataError, DownloadError, TargetError
from medqa.files import sha256
from medqa.hub import transfer
from medqa.hub.catalogue import DATA, DATA_OWNER, EXAMS, HUBS, KNOWN, MODELS, REFUSED, Hub
from medqa.hub.transfer import RemoteFile, Repository
from medqa.paths import resolve, shown

RECORD = "medqa_download.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_DATA_FILE = re.compile(r"\.(?:jsonl|json|csv|parquet)(?:\.gz|\.zst)?$")
_TEXTS = ("config.json", "generation_config.json", "tokenizer.model", "MODEL_LICENSE", "LICENSE")


def download_model(repo_id: str, hub: Hub) -> Path:
    """Fetches a checkpoint in the original layout, never any code.

    Args:
        repo_id: One of MODELS, or ``owner/name`` on `hub`.
        hub: Where from.

    Returns:
        ``models/<name>-original``, with the configuration, the tokenizer and the weights
        (safetensors where the repository has both kinds).

    Raises:
        ConfigError: The name is none.
        DownloadError: It could not be fetched, or what came is not what the hub lists.
        TargetError: A file that is not the published one lies there already.
    """
    known = MODELS.get(repo_id)
    if known is None and not _REPOSITORY.fullmatch(repo_id):
        raise ConfigError(
            "download model",
            [f"{repo_id!r} is neither owner/name nor known{nearest(repo_id, MODELS)}"],
        )
    repository = Repository(known[hub] if known else repo_id, "model", hub)
    return _download(repository, resolve("models") / f"{repository.name}-original", _model_files)


def download_data(name: str, hub: Hub) -> Path:
    """Fetches one of the Huatuo sets.

    Returns:
        ``data/raw/<name>``, with its JSON lines.

    Raises:
        ConfigError: There is no such set.
        DataError: The set cannot be trained on.
        DownloadError: It could not be fetched, or what came is not what the hub lists.
        TargetError: A file that is not the published one lies there already.
    """
    if name in REFUSED:
        raise DataError(f"{name} is refused: {REFUSED[name]}")
    if name not in DATA:
        raise ConfigError(
            "download data", [f"unknown data set {name!r}{nearest(name, DATA)} ({', '.join(DATA)})"]
        )
    repository = Repository(f"{DATA_OWNER}/{name}", "dataset", hub)

    def choose(files: list[RemoteFile]) -> list[RemoteFile]:
        _require(repository, files, DATA[name])
        return [f for f in _at_the_root(files) if f.path.endswith(".jsonl")]

    return _download(repository, resolve("data/raw") / name, choose)


def download_file(repo_id: str, file: Path, hub: Hub) -> Path:
    """Fetches the data files of any data set, for a source of a data YAML that names its ``hub``.

    Args:
        repo_id: ``owner/name`` on `hub`.
        file: Where one of them is wanted; the others come into the same folder.
        hub: Where from.

    Returns:
        The folder.

    Raises:
        ConfigError: The name is none.
        DownloadError: It could not be fetched, it holds no such file, or what came is not what
            the hub lists.
        TargetError: A file that is not the published one lies there already.
    """
    if not _REPOSITORY.fullmatch(repo_id):
        raise ConfigError("hub", [f"{repo_id!r} is not owner/name"])
    repository = Repository(repo_id, "dataset", hub)

    def choose(files: list[RemoteFile]) -> list[RemoteFile]:
        _require(repository, files, [file.name])
        return [f for f in _at_the_root(files) if _DATA_FILE.search(f.path)]

    return _download(repository, file.parent, choose)


def download_exam(name: str, hub: Hub) -> Path:
    """Fetches the files of an examination, and no others of its repository.

    Args:
        name: One of EXAMS.
        hub: Where from.

    Returns:
        ``data/raw/exams/<name>``, with the folders that the repository has.

    Raises:
        ConfigError: There is no such examination, or not on `hub`.
        DownloadError: It could not be fetched, or what came is not what the hub lists.
        TargetError: A file that is not the published one lies there already.
    """
    if name not in EXAMS:
        raise ConfigError(
            "download exams",
            [f"unknown examination {name!r}{nearest(name, EXAMS)} ({', '.join(EXAMS)})"],
        )
    ids, wanted = EXAMS[name]
    if hub not in ids:
        elsewhere = " or ".join(f"--hub {other}" for other in HUBS if other in ids)
        raise ConfigError("download exams", [f"{name} is not known on {hub}; run with {elsewhere}"])
    repository = Repository(ids[hub], "dataset", hub)

    def choose(files: list[RemoteFile]) -> list[RemoteFile]:
        _require(repository, files, wanted)
        return [f for f in files if f.path in wanted]

    return _download(repository, resolve("data/raw/exams") / name, choose)


def _download(
    repository: Repository,
    folder: Path,
    choose: Callable[[list[RemoteFile]], list[RemoteFile]],
) -> Path:
    record, inputs = folder / RECORD, {repository.name: repository.kind}
    if provenance.is_current(record, step="download", inputs=inputs, config={}):
        sys.stdout.write(f"up to date: {shown(folder)}\n")
        return folder
    staging = folder.with_name(f".{folder.name}.download")
    try:
        revision, listed = transfer.listing(repository)
        wanted = choose(listed)
        hashes = dict(_present(repository, folder, wanted))
        missing = [f for f in wanted if f.path not in hashes]
        if missing:
            _require_space(missing, staging)
            for file in missing:
                (staging / file.path).parent.mkdir(parents=True, exist_ok=True)
            transfer.fetch(repository, revision, missing, staging)
            hashes |= _verified(repository, missing, staging)
    except Exception as error:
        if not transfer.foreign(error):
            raise
        raise transfer.explained(error, repository) from error
    folder.mkdir(parents=True, exist_ok=True)
    for file in missing:
        (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
        (staging / file.path).replace(folder / file.path)
    provenance.write(
        record,
        step="download",
        inputs=inputs,
        config={},
        outputs=[folder / f.path for f in wanted],
        hub=repository.hub,
        repository=repository.id,
        revision=revision,
        sha256=hashes,
    )
    shutil.rmtree(staging, ignore_errors=True)
    size = sum((folder / f.path).stat().st_size for f in wanted)
    sys.stdout.write(f"{shown(folder)}: {len(wanted)} files, {size / 1e9:.2f} GB, verified\n")
    return folder


def _at_the_root(files: list[RemoteFile]) -> list[RemoteFile]:
    return [f for f in files if "/" not in f.path]


def _model_files(files: list[RemoteFile]) -> list[RemoteFile]:
    files = _at_the_root(files)

    def weights(stem: str, suffix: str) -> list[RemoteFile]:
        names = (suffix, f"{suffix}.index.json")
        return [f for f in files if f.path.startswith(stem) and f.path.endswith(names)]

    chosen = weights("model", ".safetensors") or weights("pytorch_model", ".bin")
    if not chosen:
        raise DownloadError(
            "the repository holds no weights in the original layout (expected model*.safetensors "
            f"or pytorch_model*.bin, found: {', '.join(f.path for f in files) or 'nothing'})"
        )
    texts = {f.path: f for f in files if f.path in _TEXTS}
    for name in ("config.json", "tokenizer.model"):
        if name not in texts:
            raise DownloadError(f"the repository holds no {name}, so it is no original ChatGLM3")
    return [*texts.values(), *chosen]


def _require(repository: Repository, files: list[RemoteFile], names: Iterable[str]) -> None:
    found = sorted(f.path for f in files)
    for name in names:
        if name not in found:
            held = ", ".join(found[:20]) + (f" and {len(found) - 20} more" * (len(found) > 20))
            raise DownloadError(
                f"{repository.id} on {repository.hub} holds no {name} (found: "
                f"{held or 'nothing'}); run again with {repository.elsewhere}"
            )


def _present(
    repository: Repository, folder: Path, wanted: list[RemoteFile]
) -> Iterator[tuple[str, str]]:
    """Yields name and hash of the files that are in place already and right."""
    for file in wanted:
        path = folder / file.path
        if not path.is_file():
            continue
        problem, actual = _problem(repository, file, path)
        if problem:
            raise TargetError(
                f"{shown(path)} lies there already and is not the published file ({problem}); "
                "move it away, then run this again"
            )
        yield file.path, actual


def _verified(repository: Repository, files: list[RemoteFile], staging: Path) -> dict[str, str]:
    """Returns name to hash; removes the files that are wrong, so that a rerun fetches them anew."""
    hashes, problems = {}, []
    for file in files:
        path = staging / file.path
        problem, hashes[file.path] = _problem(repository, file, path)
        if problem:
            path.unlink()
            problems.append(f"{file.path} ({problem})")
    if problems:
        raise DownloadError(
            f"not what {repository.id} publishes: {'; '.join(problems)}; removed, the other files "
            f"are kept; run this again, or with {repository.elsewhere}"
        )
    return hashes


def _problem(repository: Repository, file: RemoteFile, path: Path) -> tuple[str, str]:
    """Returns what is wrong with a file, or an empty string, and its SHA-256."""
    actual, size = sha256(path), path.stat().st_size
    known_size, known = KNOWN.get((repository.name, file.path), (file.size, ""))
    for expected_size in (file.size, known_size):
        if size != expected_size:
            return f"expected {expected_size:,} bytes, got {size:,}", actual
    for expected in (file.sha256 or "", known):
        if not actual.startswith(expected):
            return f"expected SHA-256 {expected[:8]}…, got {actual[:8]}…", actual
    return "", actual


def _require_space(missing: list[RemoteFile], staging: Path) -> None:
    there = sum(f.stat().st_size for f in staging.rglob("*") if f.is_file())
    needed = sum(f.size for f in missing) - there
    place = next(p for p in staging.parents if p.exists())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise DownloadError(
            f"{needed / 1e9:.1f} GB more are needed, {free / 1e9:.1f} GB are free on the disk of "
            f"{shown(staging.parent)}; free some, then run this again, it goes on where it stopped"
        )
