"""Images of the demo world: a drawing that shows the image factors, and noise."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from qarm.demo.ground_truth import Array, centres

__all__ = ["SIDE", "draw_picture"]

Grid = npt.NDArray[np.float32]

SIDE = 96
ROWS, COLUMNS = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE - 0.5
# Blue and red difference to RGB, as in BT.601.
CHROMA_TO_RGB = np.array([[0.0, 1.402], [-0.344, -0.714], [1.772, 0.0]])

# Figures of radius about 1 around the origin, one for each taste group in the order of the circle.
FIGURES: tuple[Callable[[Grid, Grid], npt.NDArray[np.bool_]], ...] = (
    lambda x, y: np.hypot(x, y) < 1.0,
    lambda x, y: np.maximum(np.abs(x), np.abs(y)) < 0.9,
    lambda x, y: (y > -0.6) & (y + 1.8 * np.abs(x) < 1.2),
    lambda x, y: np.abs(np.hypot(x, y) - 0.8) < 0.27,
    lambda x, y: (np.minimum(np.abs(x), np.abs(y)) < 0.35) & (np.maximum(np.abs(x), np.abs(y)) < 1.2),
    lambda x, y: (np.abs(x) < 1.4) & (np.abs(y) < 0.55),
    lambda x, y: np.hypot(x, y) < 0.75 + 0.35 * np.cos(5.0 * np.arctan2(y, x)),
    lambda x, y: (np.hypot(x, y) < 1.0) & (np.hypot(x - 0.5, y) > 0.8),
)


def draw_picture(factors: Array, random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """One coloured figure between grey ones on a ground, uint8 [96, 96, 3].

    Args:
        factors: the item's image factors, float64 [2]: the kind of the coloured figure and the place
            of its colour on the colour wheel (hue and saturation), and nothing else.
        random: the grey figures, places, sizes, turns, stripes, ground, light and noise.
    """
    picture = _ground(random)
    for _ in range(random.integers(0, 2)):
        grey = _colour(random.uniform(0.0, 1.0), np.zeros(2))
        picture = _paint(picture, int(random.integers(len(FIGURES))), grey, random.uniform(0.1, 0.22), random)
    colour = _colour(random.uniform(0.45, 0.7), 0.18 * factors)
    picture = _paint(picture, int(np.argmax(centres() @ factors)), colour, random.uniform(0.24, 0.36), random)
    grain = random.normal(size=(SIDE // 2, SIDE // 2)).repeat(2, axis=0).repeat(2, axis=1)
    picture = picture + random.uniform(0.0, 0.03) * grain[..., None]
    return np.rint(255.0 * np.clip(picture, 0.0, 1.0)).astype(np.uint8)


def _ground(random: np.random.Generator) -> Array:
    """A pale or dark ground, striped, with light from one side, float64 [96, 96, 3]."""
    colour = _colour(random.uniform(0.15, 0.9), random.uniform(-0.06, 0.06, size=2))
    shade = random.uniform(-0.3, 0.3) * ROWS + random.uniform(-0.3, 0.3) * COLUMNS
    ground: Array = colour * (1.0 + shade - random.uniform(0.0, 0.2) * _stripes(random))[..., None]
    return ground


def _paint(picture: Array, kind: int, colour: Array, size: float, random: np.random.Generator) -> Array:
    """The picture with one striped figure painted over it somewhere."""
    across, down = random.uniform(size - 0.5, 0.5 - size, size=2)
    turn = random.uniform(0.0, 2.0 * np.pi)
    x = (np.cos(turn) * (COLUMNS - across) + np.sin(turn) * (ROWS - down)) / size
    y = (np.cos(turn) * (ROWS - down) - np.sin(turn) * (COLUMNS - across)) / size
    striped = colour * (1.0 - random.uniform(0.0, 0.2) * _stripes(random))[..., None]
    return np.where(FIGURES[kind](x, y)[..., None], striped, picture)


def _colour(light: float, chroma: Array) -> Array:
    return light + CHROMA_TO_RGB @ chroma


def _stripes(random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Darker stripes, 0 or 1, float32 [96, 96]."""
    turn = random.uniform(0.0, np.pi)
    along = np.float32(np.cos(turn)) * COLUMNS + np.float32(np.sin(turn)) * ROWS
    phase = along * np.float32(random.uniform(4.0, 16.0)) + np.float32(random.random())
    return np.asarray(phase % 1.0 < 0.5, dtype=np.float32)
