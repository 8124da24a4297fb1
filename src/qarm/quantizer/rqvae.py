"""RQ-VAE: residual codes of a learned latent, trained by gradient; a rival of residual k-means."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn
from torch.nn import functional

from qarm.core.parallel.progress import Progress
from qarm.core.paths import as_path
from qarm.errors import InputError
from qarm.quantizer.base import Quantizer, check_enough_rows, checked_codes, wrong_seed
from qarm.quantizer.kmeans.assignment import nearest_centroids, prepared
from qarm.quantizer.model_io import complete, numbered, numbered_tensors, read_model, tensor, write_model
from qarm.quantizer.residual_kmeans import ResidualKMeans
from qarm.quantizer.vectors import Vectors, checked_rows

__all__ = ["RQVAE"]

_TILE = 512
_WARM_SHARE = 0.2  # of the epochs, as a plain autoencoder
_KMEANS_ROWS, _KMEANS_ITERATIONS = 65536, 10
_SETTINGS = ("levels", "width", "latent", "hidden", "epochs", "batch", "seed")

FloatRows = npt.NDArray[np.float32]


class RQVAE(Quantizer):
    """Encoder, residual codebooks in the latent space, decoder (RQ-VAE; Lee et al. 2022, arXiv 2203.01941).

    A fifth of the epochs trains encoder and decoder alone; residual k-means of the latents then starts the
    codebooks; the rest trains all of it, straight through the codes, with codebook and commitment losses.
    After each epoch, codes that no row used move to random rows' residuals.

    Args:
        levels: number of codebooks.
        width: codes per level.
        latent: dimension of the latent.
        hidden: units of the one hidden layer of encoder and decoder.
        epochs: passes over the rows.
        batch: rows per step.
        lr: learning rate of Adam, falling to zero along a cosine.
        commitment: weight of the loss that keeps the encoder near its codes.
        seed, random_state: of weights, batches and replaced codes.

    Learned: `codebooks_`, list of float32 [width, latent]; `widths_`; `weights_`, dict of the layers' float32
    arrays, with the `mean` [d] and `scale` [1] of the vectors; `n_features_in_`, d.
    """

    codebooks_: list[FloatRows]
    weights_: dict[str, FloatRows]

    def __init__(
        self,
        levels: int = 3,
        width: int = 256,
        *,
        latent: int = 64,
        hidden: int = 256,
        epochs: int = 100,
        batch: int = 1024,
        lr: float = 1e-3,
        commitment: float = 0.25,
        seed: int | None = None,
        random_state: int | None = None,
    ) -> None:
        self.levels = levels
        self.width = width
        self.latent = latent
        self.hidden = hidden
        self.epochs = epochs
        self.batch = batch
        self.lr = lr
        self.commitment = commitment
        self.seed = seed
        self.random_state = random_state

    def fit(self, x: Vectors, y: object = None) -> "RQVAE":
        """Train on vectors [n, d], which are held in memory.

        Raises:
            InputError: a setting is out of range, the vectors are not usable (rows are named), or there
                are fewer rows than codes.
        """
        wrong = wrong_seed(self) + [name for name in _SETTINGS[:-1] if getattr(self, name) < 1]
        if wrong or not self.lr > 0.0 or self.commitment < 0.0:
            got = ", ".join(f"{name}={value}" for name, value in self.get_params().items())
            raise InputError(f"got {got}; need counts of 1 or more, lr above 0, others of 0 or more")
        rows = checked_rows(self, x, reset=True)
        check_enough_rows(len(rows), setting="width", value=self.width, lower="quantizer.width")
        vectors = torch.from_numpy(np.array(rows, dtype=np.float32))
        mean = vectors.mean(0)
        scale = (vectors - mean).square().mean().sqrt().clamp(min=1e-12)[None]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.chosen_seed)
            encoder, decoder = _layers(len(mean), self.hidden, self.latent)
            books = self._train((vectors - mean) / scale, encoder, decoder)
        layers = {**_named("encoder", encoder), **_named("decoder", decoder)}
        self.weights_ = {**layers, "mean": mean.numpy(), "scale": scale.numpy()}
        self.codebooks_ = [book.detach().numpy().copy() for book in books]
        self.widths_ = [int(self.width)] * int(self.levels)
        return self

    def transform(self, x: Vectors) -> npt.NDArray[np.int32]:
        """Codes int32 [n, levels] of vectors [n, d], as in `fit`."""
        check_is_fitted(self)
        rows = checked_rows(self, x, reset=False)
        encoder, _ = self._network()
        books = [prepared(book) for book in self.codebooks_]
        codes = np.empty((len(rows), len(books)), dtype=np.int32)
        for start in range(0, len(rows), _TILE):
            part = rows[start : start + _TILE]
            # one shape for all tiles, so that a row's latent does not depend on its company
            padded = np.zeros((_TILE, rows.shape[1]), dtype=np.float32)
            padded[: len(part)] = part
            padded = (padded - self.weights_["mean"]) / self.weights_["scale"]
            with torch.no_grad():
                residual = encoder(torch.from_numpy(padded)).numpy()[: len(part)]
            for level, book in enumerate(books):
                codes[start : start + len(part), level] = found = nearest_centroids(residual, book)
                residual = residual - book.centroids[found]
        return codes

    def inverse_transform(self, codes: npt.ArrayLike) -> FloatRows:
        """Vectors float32 [n, d] that codes decode to; fewer columns decode the first levels.

        Raises:
            InputError: codes are no integers, or outside 0 .. width - 1.
        """
        check_is_fitted(self)
        table = checked_codes(codes, self.widths_)
        latent = np.zeros((len(table), self.codebooks_[0].shape[1]), dtype=np.float32)
        for level in range(table.shape[1]):
            latent += self.codebooks_[level][table[:, level]]
        with torch.no_grad():
            decoded: FloatRows = self._network()[1](torch.from_numpy(latent)).numpy()
        return decoded * self.weights_["scale"] + self.weights_["mean"]

    def save_pretrained(self, folder: Path | str) -> None:
        """Write `config.json` and `model.safetensors`: `level_0`, ..., and the layers by name."""
        check_is_fitted(self)
        config: dict[str, int | float] = {name: int(getattr(self, name)) for name in _SETTINGS[:-1]}
        config["seed"] = self.chosen_seed
        config |= {"lr": float(self.lr), "commitment": float(self.commitment), "dim": self.n_features_in_}
        tensors = numbered("level", self.codebooks_)
        write_model(as_path(folder), config, {**tensors, **self.weights_}, kind=type(self).__name__)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "RQVAE":
        """Read what `save_pretrained` wrote.

        Raises:
            InputError: the folder holds another quantiser, or none.
            ArtifactError: a file is missing, truncated or changed.
        """
        folder = as_path(folder)
        config, tensors = read_model(folder, kind=cls.__name__)
        with complete(folder):
            settings = {name: int(config[name]) for name in _SETTINGS}
            loaded = cls(**settings, lr=float(config["lr"]), commitment=float(config["commitment"]))
            dim = int(config["dim"])
        encoder, decoder = _layers(dim, loaded.hidden, loaded.latent)
        layers = {**_named("encoder", encoder), **_named("decoder", decoder)}
        shapes = {**{name: values.shape for name, values in layers.items()}, "mean": (dim,), "scale": (1,)}
        loaded.weights_ = {
            name: tensor(tensors, name, shape, folder=folder) for name, shape in shapes.items()
        }
        books = [(loaded.width, loaded.latent)] * loaded.levels
        loaded.codebooks_ = numbered_tensors(tensors, "level", books, folder=folder)
        loaded.widths_, loaded.n_features_in_ = [loaded.width] * loaded.levels, dim
        return loaded

    def _train(self, vectors: torch.Tensor, encoder: nn.Module, decoder: nn.Module) -> list[nn.Parameter]:
        """Train in place on vectors [n, d]; returns the codebooks, [width, latent] each."""
        layers = [*encoder.parameters(), *decoder.parameters()]
        warm = int(self.epochs * _WARM_SHARE)
        progress = Progress(total=self.epochs, desc="rq-vae", unit="epoch")
        self._epochs(vectors, encoder, decoder, [], torch.optim.Adam(layers, lr=self.lr), warm, progress)
        with torch.no_grad():
            picked = torch.randperm(len(vectors))[: max(_KMEANS_ROWS, self.width)].sort().values
            latents = encoder(vectors[picked]).numpy()
        start = ResidualKMeans(self.levels, self.width, iterations=_KMEANS_ITERATIONS, seed=self.chosen_seed)
        books = [nn.Parameter(torch.from_numpy(book)) for book in start.fit(latents).codebooks_]
        optimizer = torch.optim.Adam([*layers, *books], lr=self.lr)
        self._epochs(vectors, encoder, decoder, books, optimizer, self.epochs - warm, progress)
        progress.close()
        return books

    def _epochs(
        self,
        vectors: torch.Tensor,
        encoder: nn.Module,
        decoder: nn.Module,
        books: list[nn.Parameter],
        optimizer: torch.optim.Optimizer,
        epochs: int,
        progress: Progress,
    ) -> None:
        steps = max(epochs * -(-len(vectors) // self.batch), 1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for epoch in range(epochs):
            used = [torch.zeros(len(book), dtype=torch.bool) for book in books]
            order = torch.randperm(len(vectors))
            for start in range(0, len(order), self.batch):
                rows = vectors[order[start : start + self.batch]]
                coded, loss = self._quantize(encoder(rows), books, used)
                loss = loss + functional.mse_loss(decoder(coded), rows)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
            if epoch < epochs - 1:
                _replace_dead(vectors, encoder, books, used)
            progress.update()

    def _quantize(
        self, latent: torch.Tensor, books: list[nn.Parameter], used: list[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Latents [b, latent] as coded, with the encoder's gradient, and the losses of all levels."""
        loss, residual, total = torch.zeros(()), latent, torch.zeros_like(latent)
        for book, seen in zip(books, used, strict=True):
            found = torch.cdist(residual.detach(), book.detach()).argmin(1)
            seen[found] = True
            code = book[found]
            loss = loss + functional.mse_loss(code, residual.detach())
            loss = loss + self.commitment * functional.mse_loss(residual, code.detach())
            residual, total = residual - code.detach(), total + code.detach()
        return (latent + (total - latent).detach() if books else latent), loss

    def _network(self) -> tuple[nn.Module, nn.Module]:
        latent = self.codebooks_[0].shape[1]
        hidden = len(self.weights_["encoder.0.bias"])
        encoder, decoder = _layers(self.n_features_in_, hidden, latent)
        for prefix, part in (("encoder.", encoder), ("decoder.", decoder)):
            names = [name for name in self.weights_ if name.startswith(prefix)]
            state = {n.removeprefix(prefix): torch.from_numpy(self.weights_[n].copy()) for n in names}
            part.load_state_dict(state)
        return encoder, decoder


def _layers(dim: int, hidden: int, latent: int) -> tuple[nn.Module, nn.Module]:
    encoder = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, latent))
    return encoder, nn.Sequential(nn.Linear(latent, hidden), nn.GELU(), nn.Linear(hidden, dim))


def _named(prefix: str, module: nn.Module) -> dict[str, FloatRows]:
    return {f"{prefix}.{name}": values.numpy().copy() for name, values in module.state_dict().items()}


def _replace_dead(
    vectors: torch.Tensor, encoder: nn.Module, books: list[nn.Parameter], used: list[torch.Tensor]
) -> None:
    """Move codes that no row used to the residuals of random rows, in place."""
    with torch.no_grad():
        for level, (book, seen) in enumerate(zip(books, used, strict=True)):
            dead = torch.nonzero(~seen)[:, 0]
            if len(dead) == 0:
                continue
            residual = encoder(vectors[torch.randint(len(vectors), (len(dead),))])
            for earlier in books[:level]:
                residual = residual - earlier[torch.cdist(residual, earlier).argmin(1)]
            book[dead] = residual
