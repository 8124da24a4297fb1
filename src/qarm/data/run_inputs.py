"""Inputs of a run: the tables, their split, and the hash of everything that a stage reads."""

from functools import cached_property
from pathlib import Path

from qarm.config import Config
from qarm.core.atomic_io import digest, json_text, read_model, sha256_file, write_json
from qarm.core.parallel.engine import EngineName
from qarm.core.run_folder import read_manifest
from qarm.core.tables import address, files_hash, rows_hash
from qarm.data.catalog import Catalog, read_catalog
from qarm.data.interactions import Log, read_log
from qarm.data.splits import Split, split_log
from qarm.data.users import read_users
from qarm.errors import ArtifactError, InputError, Problems
from qarm.schemas.base import Check, Settings
from qarm.schemas.check import TablePlaces

__all__ = ["PLACES", "Run"]

FOLDERS = {"data": {"root", "max_unreadable"}, "encoder": {"cache"}}
OF_RANKER = {"labels", "weight"}  # keys of the interactions that only the ranker reads
BEFORE_RANKER: dict[str, bool | set[str]] = {
    "root": True,
    "max_unreadable": True,
    "users": True,
    "interactions": OF_RANKER,
}
PLACES = "tables.json"  # of a run folder: where its tables are, for commands that read them again
OPTIONAL = ("compare/results.json",)  # what commands beside the stages leave


class Run:
    """Tables are read once, when a stage first needs them."""

    def __init__(self, config: Config, folder: Path, *, engine: EngineName = "local") -> None:
        self.config = config
        self.folder = folder
        self.engine = engine

    @cached_property
    def tables(self) -> tuple[Catalog, Log]:
        """Both tables, or one error with the problems of both."""
        problems = Problems()
        items, interactions = self.config.data.items, self.config.data.interactions
        catalog = log = None
        try:
            catalog = read_catalog(self.config.items_path, **items.content)
        except InputError as error:
            problems.extend(error)
        try:
            log = read_log(
                self.config.interactions_path,
                known_items=catalog.item_ids if catalog else None,
                **interactions.model_dump(exclude={"path"}),
            )
        except InputError as error:
            problems.extend(error)
        try:
            log = log and self._with_users(log)
        except InputError as error:
            problems.extend(error)
        problems.raise_any()
        assert catalog is not None  # noqa: S101 - both are set when there was no problem
        assert log is not None  # noqa: S101
        return catalog, log

    def write_places(self) -> None:
        """Write where the tables are, for commands that are called from another folder."""
        paths = {"items": self.config.items_path, "interactions": self.config.interactions_path}
        if self.has_users:
            paths["users"] = self.config.users_path
        content = TablePlaces(**{name: address(path) or str(path.absolute()) for name, path in paths.items()})
        file = self.folder / PLACES
        if not file.is_file() or file.read_text(encoding="utf-8", errors="replace") != json_text(content):
            write_json(file, content)

    def _with_users(self, log: Log) -> Log:
        users = self.config.data.users
        if not self.has_users:
            return log
        return log.with_users(read_users(self.config.users_path, id=users.id, features=users.features))

    @cached_property
    def catalog(self) -> Catalog:
        """The catalogue without the media that `check` could not read."""
        report = read_model(self.folder / "check" / "check.json", Check)
        return self.tables[0].without_media(
            images=report.bad_images, sounds=report.bad_sounds, numbers=report.bad_numbers
        )

    @cached_property
    def split(self) -> Split:
        """Training, validation and test part of the interactions."""
        return split_log(self.tables[1], **self.config.split.model_dump(), seed=self.config.seed)

    @cached_property
    def known(self) -> Catalog:
        """Items with a training event: all that anything learned may see."""
        return self.catalog.only(self.split.train.items)

    @cached_property
    def cache(self) -> Path:
        """Folder of the tower features."""
        return self.config.encoder.cache or self.folder / "cache"

    @cached_property
    def _source_hashes(self) -> dict[str, str]:
        catalog, log = self.tables
        hashes = {
            "items": (None if self.config.data.items.has_files else files_hash(self.config.items_path))
            or catalog.rows_hash(),
            "interactions": files_hash(self.config.interactions_path) or log.rows_hash(),
        }
        if log.about is None:
            return hashes
        return hashes | {"users": files_hash(self.config.users_path) or rows_hash(log.about.frame)}

    @property
    def has_users(self) -> bool:
        """Whether the ranker reads features of users."""
        return bool(self.config.data.users.features)

    @cached_property
    def _media_hash(self) -> str:
        return self.tables[0].media_digest()

    def hash_of(self, name: str) -> str:
        """Hash of an input: a source table, the media, an artefact of an earlier stage, or `none`."""
        if name == "media":
            return self._media_hash
        if name in self._source_hashes:
            return self._source_hashes[name]
        if name in OPTIONAL:
            path = self.folder / name
            return sha256_file(path) if path.is_file() else "none"
        folder, _, file = name.partition("/")
        manifest = read_manifest(self.folder / folder)
        if manifest is None:
            raise ArtifactError(f"{self.folder / folder} is not finished; run its stage first")
        return manifest.outputs[file] if file else digest(manifest.outputs)

    def given(self) -> dict[str, object]:
        """Hashes of the source tables, and all settings that change a result."""
        return {"tables": self._source_hashes, **self.settings(tuple(Config.model_fields))}

    def settings(self, sections: tuple[str, ...]) -> Settings:
        """Sections of the config as JSON, without the keys that do not change the stage's result.

        These are folders and, for stages before the ranker's, keys that only the ranker reads.
        """
        content: Settings = self.config.model_dump(mode="json", exclude=FOLDERS)
        if "ranker" not in sections:
            content["data"] = self.config.data.model_dump(mode="json", exclude=BEFORE_RANKER)
        return {section: content[section] for section in sections}
