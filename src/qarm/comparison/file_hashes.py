"""File hashes of a comparison: what was written is entered, and compared before it is read back."""

from pathlib import Path

from qarm.core.atomic_io import digest, read_json, sha256_file, write_json
from qarm.errors import ArtifactError

__all__ = ["HASHES", "checked", "damaged_files", "enter"]

HASHES = "hashes.json"
SEAL = "sha256"  # of all the rest


def enter(folder: Path, *paths: Path) -> None:
    """Enter the hashes of files that are complete.

    Args:
        folder: of the comparison; paths: in it.
    """
    known = _known(folder)
    new = known | {path.relative_to(folder).as_posix(): sha256_file(path) for path in paths}
    if new != known:
        content = {"files": dict(sorted(new.items()))}
        write_json(folder / HASHES, content | {SEAL: digest(content)})


def checked(folder: Path, path: Path) -> Path:
    """The path of a file that is as it was written.

    A file that has no hash is entered: an earlier qarm wrote it, or a process that ended before it could.

    Raises:
        ArtifactError: it was changed.
    """
    expected = _known(folder).get(path.relative_to(folder).as_posix())
    if expected is None:
        enter(folder, path)
    elif sha256_file(path) != expected:
        raise ArtifactError(
            f"{path} changed since qarm compare wrote it; restore it from a copy, or remove it with qarm "
            f"verify --repair {folder}: qarm compare makes it again"
        )
    return path


def damaged_files(folder: Path) -> list[str]:
    """Names of files that are missing or not as they were written; of all, the hashes' own where it is."""
    try:
        known = _known(folder)
    except ArtifactError:
        return [HASHES]
    return [
        name
        for name, expected in known.items()
        if not (folder / name).is_file() or sha256_file(folder / name) != expected
    ]


def _known(folder: Path) -> dict[str, str]:
    path = folder / HASHES
    if not path.is_file():
        return {}
    content = read_json(path)
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or content.get(SEAL) != digest({"files": files}):
        raise ArtifactError(f"{path} was changed; remove it, and compare the files with a copy")
    return files
