"""The demo world: what is planted decides what is seen and chosen, and nothing else does."""

import dataclasses
import hashlib
import itertools
import re
import wave
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from qarm.demo import PARTS, SIZES, SOURCES, DemoWorld, WorldSpec, build_world, true_scores
from qarm.demo import build as build_module
from qarm.demo.audio import RATE, play_sound
from qarm.demo.click_simulation import SPLIT_TIME, _fastest, _race, _rhythm, choose, utilities
from qarm.demo.ground_truth import GROUPS, GroundTruth, Tastes, centres, draw_ground_truth, stream
from qarm.demo.image import FIGURES, draw_picture
from qarm.demo.text import THEME_WORDS, THEMES, write_text
from qarm.errors import InputError

TINY = WorldSpec(items=60, users=40, events_per_user=12)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> DemoWorld:
    return build_world(tmp_path_factory.mktemp("worlds") / "tiny", spec=TINY)


def table(world: DemoWorld, name: str) -> pl.DataFrame:
    return pl.read_parquet(world.folder / f"{name}.parquet")


def fingerprints(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def theme_counts(description: str) -> np.ndarray:
    words = re.findall(r"[a-z]+", description)
    return np.array([sum(word in theme.split() for word in words) for theme in THEMES.values()])


# ---- what lies in the folder ------------------------------------------------------------------


def test_a_world_holds_the_tables_the_media_and_the_truth(tiny: DemoWorld) -> None:
    items, log = table(tiny, "items"), table(tiny, "interactions")
    assert items.columns == ["item_id", "title", "description", "image_path", "audio_path"]
    assert items["item_id"].to_list() == [f"i{n:05d}" for n in range(1, 61)]
    assert items["image_path"][0] == "media/images/i00001.png"
    assert log.schema == {"user_id": pl.String, "item_id": pl.String, "timestamp": pl.Int64}
    factors = [f"{source}_{dim}" for source in SOURCES for dim in (0, 1)]
    assert table(tiny, "truth").columns == ["item_id", *factors, "popularity", "cold"]
    assert table(tiny, "truth_users").columns == ["user_id", *factors]
    assert (tiny.items, tiny.cold_items, tiny.users, tiny.events) == (60, 6, 40, log.height)
    assert not (tiny.folder / "world.building").exists()


def test_every_picture_and_sound_decodes(tiny: DemoWorld) -> None:
    for row in table(tiny, "items").iter_rows(named=True):
        with Image.open(tiny.folder / row["image_path"]) as image:
            assert (image.size, image.mode) == ((96, 96), "RGB")
            assert np.asarray(image).std() > 5
        with wave.open(str(tiny.folder / row["audio_path"])) as sound:
            assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, RATE)
            assert 0.5 * RATE <= sound.getnframes() <= 0.8 * RATE
            assert np.frombuffer(sound.readframes(RATE), "<i2").std() > 20


def test_one_seed_gives_the_same_bytes_and_another_seed_others(tiny: DemoWorld, tmp_path: Path) -> None:
    build_world(tmp_path / "again", spec=TINY)
    build_world(tmp_path / "other", spec=TINY, seed=1)
    first, again, other = (fingerprints(f) for f in (tiny.folder, tmp_path / "again", tmp_path / "other"))
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


# ---- building again ---------------------------------------------------------------------------


def test_a_finished_world_is_left_alone(tmp_path: Path) -> None:
    first = build_world(tmp_path, spec=TINY)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert build_world(tmp_path, spec=TINY) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_other_settings_replace_the_world(tmp_path: Path) -> None:
    build_world(tmp_path, spec=dataclasses.replace(TINY, items=80))
    world = build_world(tmp_path, spec=TINY)
    assert world.items == 60
    assert len(list((tmp_path / "media" / "images").iterdir())) == 60


@pytest.mark.parametrize("lost", ["truth.parquet", "world.json", "media/images/i00007.png"])
def test_a_world_with_a_lost_file_is_built_again(tiny: DemoWorld, tmp_path: Path, lost: str) -> None:
    build_world(tmp_path, spec=TINY)
    (tmp_path / lost).unlink()
    if lost == "world.json":
        (tmp_path / "world.building").touch()
    build_world(tmp_path, spec=TINY)
    assert fingerprints(tmp_path) == fingerprints(tiny.folder)


def test_an_interrupted_build_is_done_again(
    tiny: DemoWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:

        def power_cut(path: Path, samples: object) -> None:
            raise KeyboardInterrupt

        broken.setattr(build_module, "_write_sound", power_cut)
        with pytest.raises(KeyboardInterrupt):
            build_world(tmp_path, spec=TINY)
    assert not (tmp_path / "world.json").exists()
    build_world(tmp_path, spec=TINY)
    assert fingerprints(tmp_path) == fingerprints(tiny.folder)


def test_foreign_tables_are_not_overwritten(tmp_path: Path) -> None:
    mine = tmp_path / "items.parquet"
    mine.write_text("mine")
    with pytest.raises(InputError, match=r"holds items\.parquet, but no demo world"):
        build_world(tmp_path, spec=TINY)
    assert mine.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["items.parquet"]


def test_all_wrong_settings_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        build_world(tmp_path / "w", spec=WorldSpec(items=5, users=0, cold=1.5, strength=-1.0))
    assert [p.split(" = ")[0] for p in caught.value.problems] == ["items", "users", "cold", "strength"]
    for wrong, words in (
        ({"spec": dataclasses.replace(TINY, events_per_user=30)}, "at most a third of the 54 items"),
        ({"spec": TINY, "seed": -1}, "seed = -1"),
        ({"size": "huge"}, "need one of small, large"),
        ({"spec": WorldSpec(users=200_000)}, "users x events_per_user = 12,000,000"),
    ):
        with pytest.raises(InputError, match=words):
            build_world(tmp_path / "w", **wrong)
    assert not (tmp_path / "w").exists()


# ---- when and by whom -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[GroundTruth, pl.DataFrame]:
    """The small world without its media: planted truth and events."""
    spec = SIZES["small"]
    planted = draw_ground_truth(spec, seed=0)
    events = choose(spec, planted, seed=0)
    return planted, pl.DataFrame({"user": events.user, "item": events.item, "time": events.time})


def test_the_small_world_has_the_promised_size(small: tuple[GroundTruth, pl.DataFrame]) -> None:
    planted, log = small
    assert planted.cold.sum() == 200
    assert 55_000 < log.height < 65_000
    assert log["user"].n_unique() == 1_000


def test_seven_tenths_of_the_events_lie_before_the_split_time(
    small: tuple[GroundTruth, pl.DataFrame],
) -> None:
    time = small[1]["time"].to_numpy()
    assert (time < SPLIT_TIME).sum() * 10 == 7 * len(time)
    assert (np.diff(time) > 0).all()
    assert (time[-1] - time[0]) / 86_400 == pytest.approx(100, abs=1)


def test_cold_items_appear_after_the_split_time_and_are_chosen(
    small: tuple[GroundTruth, pl.DataFrame],
) -> None:
    planted, log = small
    later = log.with_columns(cold=planted.cold[log["item"].to_numpy()])
    assert later.filter("cold")["time"].min() > SPLIT_TIME
    for part in (later[-12_000:], later[-18_000:-12_000]):
        assert 0.09 < part["cold"].mean() < 0.15
    assert later.filter("cold")["item"].n_unique() == 200


def test_nobody_chooses_an_item_twice(small: tuple[GroundTruth, pl.DataFrame]) -> None:
    assert not small[1].select("user", "item").is_duplicated().any()


def test_nearly_all_users_act_in_every_part(small: tuple[GroundTruth, pl.DataFrame]) -> None:
    log = small[1]
    tenth = log.height // 10
    parts = (log[: 7 * tenth], log[7 * tenth : 8 * tenth], log[8 * tenth :])
    users = set.intersection(*(set(part["user"].to_list()) for part in parts))
    assert len(users) > 970


def test_days_have_a_rhythm(small: tuple[GroundTruth, pl.DataFrame]) -> None:
    hours = np.bincount(small[1]["time"].to_numpy() // 3_600 % 24, minlength=24)
    assert hours[19:22].min() > 5 * hours[2:5].max()


def test_choices_follow_the_utility() -> None:
    """Three levels of utility and one event each: shares must be those of exp(utility)."""
    spec = WorldSpec(items=30, users=20_000, events_per_user=4, strength=0.0, cold=0.01)
    popularity = np.repeat([0.0, 1.0, 2.0], 10)
    planted = dataclasses.replace(draw_ground_truth(spec, seed=0), popularity=popularity)
    events = choose(spec, planted, seed=3)
    first = pl.DataFrame({"user": events.user, "item": events.item}).unique("user", keep="first")
    shares = np.bincount(first["item"] // 10, minlength=3) / first.height
    np.testing.assert_allclose(shares, np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum(), atol=0.015)


def test_a_race_draws_without_replacement_and_lets_cold_items_in_late() -> None:
    """Ordered triples of four items, the last one cold, against their Plackett-Luce shares."""
    rates, races = np.array([1.0, 2.0, 3.0, 4.0]), 60_000
    utility = np.broadcast_to(np.log(rates).astype(np.float32), (races, 4))
    cold = np.array([False, False, False, True])
    two, three = np.full(races, 2), np.full(races, 3)
    drawn = _race(utility, cold, two, three, np.random.default_rng(0)).reshape(races, 3)
    share = pl.DataFrame(drawn).group_by(pl.all()).len().rows()
    seen = {row[:3]: row[3] / races for row in share}
    expected = {}
    for first, second, last in itertools.permutations(range(4), 3):
        if 3 not in (first, second):
            early = rates[first] / 6 * rates[second] / (6 - rates[first])
            expected[first, second, last] = early * rates[last] / (10 - rates[first] - rates[second])
    assert seen.keys() == expected.keys()
    assert max(abs(seen[triple] - expected[triple]) for triple in seen) < 0.008


def test_a_race_stops_at_each_users_count() -> None:
    utility = np.zeros((3, 50), dtype=np.float32)
    cold = np.zeros(50, dtype=np.bool_)
    drawn = _race(utility, cold, np.array([0, 5, 2]), np.array([4, 5, 9]), np.random.default_rng(0))
    assert len(drawn) == 18
    assert all(len(set(part)) == len(part) for part in np.split(drawn, [4, 9]))


def test_the_fastest_are_found_in_order() -> None:
    clocks = np.random.default_rng(0).random((5, 40), dtype=np.float32)
    np.testing.assert_array_equal(_fastest(clocks, 7), clocks.argsort(axis=1)[:, :7])
    assert _fastest(clocks, 0).shape == (5, 0)


@pytest.mark.parametrize("count", [1, 1_000, 60_000, 86_399])
def test_a_crowded_day_still_has_distinct_times(count: int) -> None:
    times = _rhythm(count, 1)
    assert len(times) == count
    assert (np.diff(times) > 0).all()
    assert times[0] >= 0
    assert times[-1] < 86_400


def test_users_come_back_for_short_visits(small: tuple[GroundTruth, pl.DataFrame]) -> None:
    """Half of the gaps are minutes, and the others spread over days: visits, not a Poisson drizzle."""
    gaps = small[1].sort("user", "time").select(pl.col("time").diff().over("user"))["time"].drop_nulls()
    assert 0.4 < (gaps < 3_600).mean() < 0.7
    assert gaps.filter(gaps >= 3_600).median() > 86_400


# ---- the planted truth ------------------------------------------------------------------------


def auc_of(planted: GroundTruth, log: pl.DataFrame, scores: np.ndarray, *, cold: bool) -> float:
    """AUC of [users, items] scores: events after the split against items that the user never chose."""
    touched = np.zeros(scores.shape, dtype=bool)
    touched[log["user"], log["item"]] = True
    after = log.filter(pl.col("time") >= SPLIT_TIME).select("user", "item").to_numpy()
    after = after[planted.cold[after[:, 1]] == cold]
    pool = np.flatnonzero(planted.cold == cold)
    negative = np.random.default_rng(0).choice(pool, size=(len(after), 10))
    user = np.repeat(after[:, :1], 10, axis=1)
    free = ~touched[user, negative]
    positive = scores[after[:, 0], after[:, 1]]
    labels = np.r_[np.ones(len(after)), np.zeros(free.sum())]
    return float(roc_auc_score(labels, np.r_[positive, scores[user, negative][free]]))


@pytest.mark.parametrize("cold", [False, True])
def test_the_truth_predicts_choices_better_than_any_part(
    small: tuple[GroundTruth, pl.DataFrame], cold: bool
) -> None:
    planted, log = small
    truth = auc_of(planted, log, utilities(planted, slice(None)), cold=cold)
    utility = [t @ f.T for f, t in zip(planted.factors, planted.tastes, strict=True)]
    parts = [auc_of(planted, log, part, cold=cold) for part in utility]
    popularity = np.broadcast_to(planted.popularity, (1_000, 2_000))
    assert 0.83 < truth < 0.90
    assert all(0.64 < part < 0.74 for part in parts)  # four sources of about equal strength
    assert 0.78 < auc_of(planted, log, sum(utility[:3]), cold=cold) < truth - 0.02
    assert 0.53 < auc_of(planted, log, popularity, cold=cold) < 0.63


def test_factors_are_standard_and_independent_of_one_another() -> None:
    planted = draw_ground_truth(dataclasses.replace(SIZES["small"], items=20_000), seed=0)
    columns = np.concatenate([*planted.factors.transpose(0, 2, 1), planted.popularity[None]])
    np.testing.assert_allclose(columns[:8].mean(axis=1), 0, atol=0.03)
    np.testing.assert_allclose(columns[:8].std(axis=1), 1, atol=0.03)
    assert np.abs(np.corrcoef(columns) - np.eye(9)).max() < 0.03


def test_everybody_leans_equally_far_in_every_source() -> None:
    planted = draw_ground_truth(TINY, seed=0)
    np.testing.assert_allclose(np.linalg.norm(planted.tastes, axis=2), TINY.strength)


def test_likes_are_for_groups_and_spread_equally() -> None:
    """One or two of two opposite groups: no direction of the plane likes both."""
    planted = draw_ground_truth(dataclasses.replace(SIZES["small"], tastes="groups"), seed=0)
    assert planted.tastes.shape == (4, 1_000, GROUPS)
    np.testing.assert_allclose(planted.tastes.mean(axis=2), 0, atol=1e-12)
    np.testing.assert_allclose(planted.tastes.std(axis=2), 0.8)
    liked = (planted.tastes > 0).sum(axis=2)
    assert {*np.unique(liked)} == {1, 2, 3}
    for factors, group in zip(planted.factors, planted.groups, strict=True):
        nearest = (factors @ centres().T).argmax(axis=1)
        assert (nearest == group).mean() > 0.85  # the jitter moves some across
    plain = draw_ground_truth(SIZES["small"], seed=0)
    np.testing.assert_array_equal(planted.factors, plain.factors)  # items look the same
    fixed = dataclasses.replace(planted, popularity=np.zeros(2_000))
    utility = utilities(fixed, slice(0, 20))
    expected = sum(fixed.tastes[k, :20][:, fixed.groups[k]] for k in range(4))
    np.testing.assert_allclose(utility, expected, atol=1e-5)
    with pytest.raises(InputError, match="tastes = 'all', need one of directions, groups"):
        WorldSpec(tastes="all").check()  # type: ignore[arg-type]


@pytest.mark.parametrize("tastes", ["directions", "groups"])
def test_true_scores_are_the_planted_utilities(tmp_path: Path, tastes: Tastes) -> None:
    spec = dataclasses.replace(TINY, tastes=tastes)
    tiny = build_world(tmp_path / "tiny", spec=spec)
    log = table(tiny, "interactions")
    users, items = log["user_id"].to_list(), log["item_id"].to_list()
    planted = draw_ground_truth(spec, seed=0)
    rows = [int(user[1:]) - 1 for user in users], [int(item[1:]) - 1 for item in items]
    scores = true_scores(tiny.folder, users=users, items=items)
    np.testing.assert_allclose(scores, utilities(planted, slice(None))[rows], rtol=1e-4, atol=1e-5)
    single = [true_scores(tiny.folder, users=users, items=items, parts=[part]) for part in PARTS]
    np.testing.assert_allclose(sum(single), scores, rtol=1e-12)
    np.testing.assert_array_equal(single[-1], planted.popularity[rows[1]])


def test_true_scores_refuse_what_the_world_does_not_know(tiny: DemoWorld, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not know item_id shoe"):
        true_scores(tiny.folder, users=["u00001"], items=["shoe"])
    with pytest.raises(InputError, match="unknown parts smell"):
        true_scores(tiny.folder, users=["u00001"], items=["i00001"], parts=["smell"])
    with pytest.raises(InputError, match="got 1 users and 0 items"):
        true_scores(tiny.folder, users=["u00001"], items=[])
    with pytest.raises(InputError, match="build the world first"):
        true_scores(tmp_path, users=["u00001"], items=["i00001"])


# ---- what can be seen -------------------------------------------------------------------------


def with_other(source: str):
    """`plant` with the factors of one source drawn anew."""

    def replanted(spec: WorldSpec, *, seed: int) -> GroundTruth:
        planted = draw_ground_truth(spec, seed=seed)
        factors = planted.factors.copy()
        factors[SOURCES.index(source)] = draw_ground_truth(spec, seed=seed + 100).factors[
            SOURCES.index(source)
        ]
        return dataclasses.replace(planted, factors=factors)

    return replanted


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_changes_its_own_medium_and_no_other(
    tiny: DemoWorld, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(build_module, "draw_ground_truth", with_other(source))
    build_world(tmp_path, spec=TINY)
    before, after = fingerprints(tiny.folder), fingerprints(tmp_path)
    kinds = {"text": r"items\.parquet", "image": r"media/images/.*", "audio": r"media/audio/.*"}
    for medium, pattern in kinds.items():
        names = [name for name in before if re.fullmatch(pattern, name)]
        changed = [name for name in names if before[name] != after[name]]
        assert (len(changed) > 0.9 * len(names)) == (medium == source)
        assert bool(changed) == (medium == source)


def test_a_text_shows_its_group_and_borrows_from_the_neighbours() -> None:
    assert len(THEMES) == len(FIGURES) == GROUPS
    assert len({word for theme in THEMES.values() for word in theme.split()}) == sum(
        len(theme.split()) for theme in THEMES.values()
    )
    for group, centre in enumerate(centres()):
        drawn = [write_text(1.35 * centre, stream(0, "text", i)) for i in range(20)]
        counts = np.array([theme_counts(description) for _, description in drawn])
        assert (counts.sum(axis=1) == THEME_WORDS).all()
        assert (counts.argmax(axis=1) == group).all()
        neighbours = [(group - 1) % GROUPS, (group + 1) % GROUPS]
        assert counts[:, [group, *neighbours]].sum() == counts.sum()
        assert len({description for _, description in drawn}) == 20
    between = theme_counts(write_text(1.35 * centres()[:2].mean(axis=0), stream(0, "text", 0))[1])
    assert between[:2].tolist() == [3, 3]


def test_the_rest_of_a_text_does_not_depend_on_the_factors() -> None:
    one, other = (write_text(1.35 * centre, stream(0, "text", 5)) for centre in centres()[[0, 4]])
    assert one[0] == other[0]
    themes = "|".join(word for theme in THEMES.values() for word in theme.split())
    assert re.sub(rf"\b({themes})\b", "_", one[1]) == re.sub(rf"\b({themes})\b", "_", other[1])
    assert one[1] != other[1]


def test_opposite_picture_factors_give_opposite_colours() -> None:
    """Mean chroma over many pictures turns with the factors; grey figures and grounds cancel out."""
    for centre in centres():
        pictures = np.stack([draw_picture(1.3 * centre, stream(1, "picture", i)) for i in range(40)])
        red, green, blue = pictures.reshape(-1, 3).mean(axis=0) / 255
        light = 0.299 * red + 0.587 * green + 0.114 * blue
        chroma = np.array([(blue - light) / 1.772, (red - light) / 1.402])
        assert chroma @ centre / np.linalg.norm(chroma) > 0.85


def test_the_ground_of_a_picture_does_not_depend_on_the_factors() -> None:
    for i in range(10):
        one, other = (draw_picture(1.3 * c, stream(0, "picture", i)) for c in centres()[[0, 4]])
        same = (one == other).all(axis=2)
        assert 0.3 < same.mean() < 0.97


def test_position_size_and_ground_vary_between_pictures_of_one_taste() -> None:
    pictures = np.stack([draw_picture(centres()[1], stream(0, "picture", i)) for i in range(30)])
    corners = pictures[:, :4, :4].mean(axis=(1, 2, 3))
    assert corners.std() > 30
    assert len({picture.tobytes() for picture in pictures}) == 30


def test_length_and_loudness_of_a_sound_do_not_depend_on_the_factors() -> None:
    pairs = [
        [play_sound(np.array(f), stream(0, "sound", i)) for f in ([1.0, 1.0], [-1.0, -1.0])]
        for i in range(30)
    ]
    assert all(len(one) == len(other) for one, other in pairs)
    assert len({len(one) for one, _ in pairs}) > 25
    loudness = np.log10([[np.abs(sound).max() for sound in pair] for pair in pairs])
    assert np.corrcoef(loudness.T)[0, 1] > 0.9
    assert loudness.std() > 0.2


def loud_spectrum(factors: list[float]) -> tuple[float, float]:
    """Median over sounds of the strongest frequency, and of the energy share above 4 kHz in dB."""
    peaks, shares = [], []
    for i in range(30):
        sound = play_sound(np.array(factors), stream(0, "sound", i)).astype(float)
        power = np.abs(np.fft.rfft(sound)) ** 2
        frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
        peaks.append(frequency[power.argmax()])
        shares.append(10 * np.log10(power[frequency > 4_000].sum() / power.sum()))
    return float(np.median(peaks)), float(np.median(shares))


def test_the_first_audio_factor_is_pitch_and_the_second_breath() -> None:
    low, high = loud_spectrum([-1.0, 0.0]), loud_spectrum([1.0, 0.0])
    assert high[0] / low[0] == pytest.approx(2**0.8, rel=0.02)
    calm, breathy = loud_spectrum([0.0, -1.2]), loud_spectrum([0.0, 1.2])
    assert breathy[1] > calm[1] + 6
    assert calm[0] == pytest.approx(breathy[0], rel=0.02)
