"""Heads: scales, stand-ins, what the untrained ones keep."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from qarm.encoder.feature_cache import Features
from qarm.encoder.heads import Batch, Heads, as_batch, flat

SHAPES = {"text": (6,), "audio": (16, 4)}


def make_heads(seed: int = 0) -> Heads:
    torch.manual_seed(seed)
    return Heads(SHAPES, dim=32, hidden=16, dropout=0.0).eval()


def make_batch(count: int = 5, *, without_text: tuple[int, ...] = (), seed: int = 1) -> Batch:
    random = np.random.default_rng(seed)
    text = random.normal(size=(count, 6)).astype(np.float32)
    audio = random.normal(size=(count, 16, 4)).astype(np.float16)
    there = np.array([row not in without_text for row in range(count)])
    features = Features(
        [f"i{row}" for row in range(count)],
        {"text": text[there], "audio": audio},
        {"text": there, "audio": np.ones(count, dtype=bool)},
    )
    return as_batch(features, ["audio", "text"])


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


def test_flat_gives_means_and_deviations_of_frames() -> None:
    frames = torch.tensor([[[1.0, 5.0], [3.0, 5.0]]])
    assert flat(frames).tolist() == [[2.0, 5.0, 1.0, 0.0]]
    assert flat(frames[:, 0]).tolist() == [[1.0, 5.0]]


def test_vectors_have_unit_length_and_depend_on_every_modality() -> None:
    heads, batch = make_heads(), make_batch()
    vectors = heads(batch)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(5))
    for modality in SHAPES:
        changed = {m: values + (m == modality) for m, values in batch.values.items()}
        assert not torch.allclose(vectors, heads(Batch(changed, batch.present)), atol=1e-3)


def test_a_missing_modality_is_replaced_by_its_learned_vector() -> None:
    heads = make_heads()
    whole, lacking = make_batch(), make_batch(without_text=(2, 4))
    found, all_there = heads(lacking), heads(whole)
    assert torch.allclose(found[[0, 1, 3]], all_there[[0, 1, 3]], atol=1e-6)
    assert not torch.allclose(found[2], all_there[2])
    with torch.no_grad():
        heads.missing[1] += 1.0  # text, the second in the order of names
    moved = heads(lacking)
    assert torch.allclose(moved[[0, 1, 3]], all_there[[0, 1, 3]], atol=1e-6)
    assert not torch.allclose(moved[2], found[2])
    keep = torch.ones(5, 2, dtype=torch.bool)
    keep[[2, 4], 1] = False
    assert torch.allclose(heads(whole, keep), moved, atol=1e-6)


def test_a_modality_that_nobody_has_may_be_left_out_of_the_batch() -> None:
    heads, batch = make_heads(), make_batch()
    nobody = torch.zeros(5, 1, dtype=torch.bool)
    silent = Batch({"text": batch.values["text"]}, torch.cat([nobody, batch.present[:, 1:]], dim=1))
    keep = torch.tensor([[False, True]]).expand(5, 2)
    assert torch.equal(heads(silent), heads(batch, keep))
    assert torch.equal(heads.raw(silent)[:, :8], torch.zeros(5, 8))


def test_scales_are_of_the_given_values_and_a_constant_column_is_only_centred() -> None:
    heads = make_heads()
    values = torch.tensor([[1.0, 7.0, 0, 0, 0, 0], [3.0, 7.0, 0, 0, 0, 0]])
    heads.fit_scale("text", values)
    assert heads.scale["text"](values)[:, :2].tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_raw_vectors_by_hand() -> None:
    heads = Heads({"text": (2,), "image": (2,)}, dim=4, hidden=4, dropout=0.0)
    text, image = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[0.0, 5.0]])
    batch = Batch({"text": text, "image": image}, torch.tensor([[True, True], [False, True]]))
    half = 0.5**0.5
    expected = [[0.0, half, 0.6 * half, 0.8 * half], [0.0, 0.0, 0.0, 1.0]]
    assert torch.allclose(heads.raw(batch), torch.tensor(expected))


def test_the_untrained_head_keeps_who_is_near_whom() -> None:
    torch.manual_seed(0)
    heads = Heads({"text": (384,), "image": (256,)}, dim=128, hidden=64, dropout=0.0).eval()
    random = np.random.default_rng(0)
    group = np.arange(60) % 6
    values = {
        m: torch.from_numpy(
            (random.normal(size=(6, d))[group] + random.normal(size=(60, d))).astype(np.float32)
        )
        for m, d in (("text", 384), ("image", 256))
    }
    batch = Batch(values, torch.ones(60, 2, dtype=torch.bool))

    def purity(vectors: torch.Tensor) -> float:
        scores = vectors @ vectors.T - 2 * torch.eye(60)
        return float(np.mean(group[scores.argmax(1).numpy()] == group))

    assert purity(heads(batch)) >= purity(heads.raw(batch)) - 0.05


def test_sounds_are_heard_wherever_they_are() -> None:
    heads = make_heads()
    for parameter in heads.listen["audio"].parameters():
        torch.nn.init.normal_(parameter)
    frames = torch.zeros(1, 16, 4)
    early, late = frames.clone(), frames.clone()
    early[:, :8] = torch.randn(8, 4)
    late[:, 8:] = early[:, :8]
    listen = heads.listen["audio"]
    assert torch.allclose(listen(early), listen(late), atol=1e-5)
    assert torch.allclose(listen(torch.cat([early, torch.ones(1, 3, 4)], dim=1)), listen(early))


@torch.no_grad()
def test_an_anchor_is_the_raw_vectors_share_of_a_cosine() -> None:
    plain = make_heads()
    torch.manual_seed(0)
    heads = Heads(SHAPES, dim=32, hidden=16, dropout=0.0, anchor=0.3).eval()
    heads.load_state_dict(plain.state_dict())
    batch = make_batch(without_text=(1, 3))
    learned, raw, both = plain(batch), plain.raw(batch), heads(batch)
    assert both.shape[1] == heads.length == 32 + 6 + 8
    assert torch.allclose(both @ both.T, 0.7 * learned @ learned.T + 0.3 * raw @ raw.T, atol=1e-6)


@torch.no_grad()
def test_an_anchor_does_not_show_what_is_hidden() -> None:
    heads = Heads(SHAPES, dim=8, hidden=4, dropout=0.0, anchor=0.5).eval()
    keep = torch.ones(5, 2, dtype=torch.bool)
    keep[2] = torch.tensor([True, False])  # the sound stays, the text does not
    hidden = heads(make_batch(), keep)
    missing = heads(make_batch(without_text=(2,)))
    assert torch.allclose(hidden[2], missing[2], atol=1e-6)
    keep[2] = False
    assert not heads(make_batch(), keep)[2, 8:].any()
