"""Text of the demo world: a title and description that show the text factors, and words without meaning."""

import math
from collections.abc import Sequence

import numpy as np

from qarm.demo.ground_truth import Array, centres

__all__ = ["THEMES", "write_text"]

THEME_WORDS = 6
SHARPNESS = 4.0

# In the order of the circle: an item between two groups borrows words from both.
THEMES = {
    "sea": "harbour tide coral lighthouse anchor sailor seashell dolphin lagoon driftwood kelp surf",
    "winter": "glacier snowflake sledge icicle blizzard mittens igloo reindeer snowman skates avalanche",
    "space": "comet orbit nebula rocket galaxy astronaut meteor satellite eclipse planet cosmos telescope",
    "machines": "gear piston locomotive engine turbine clockwork lever robot factory bolt crane valve",
    "castle": "knight dragon moat tower sword crown banner wizard dungeon shield throne jester",
    "music": "violin trumpet melody drum orchestra piano chorus guitar waltz accordion flute rhythm",
    "kitchen": "basil oven saffron dough skillet pepper bakery soup honey whisk garlic cinnamon",
    "forest": "pine moss fern oak woodpecker acorn mushroom badger birch thicket squirrel hedgehog",
}
THEME_SENTENCES = (
    "The design brings together {0}, {1} and {2}, with {3}, {4} and {5} around the edge.",
    "Look closely and you find {0} and {1}, then {2}, {3}, {4} and finally {5}.",
    "A series about {0}, {1}, {2} and {3}; this one adds {4} and {5}.",
    "Printed with {0}, {1} and {2}; on the back {3}, {4} and {5}.",
    "For friends of {0} and {1}: {2}, {3}, {4} and {5} by our own illustrators.",
)
FILLERS = (
    "Made of {material}, {finish}.",
    "Weighs {number} grams and comes in {packaging}.",
    "The {material} parts are {finish} and easy to replace.",
    "Dispatched within {number} hours in {packaging}.",
    "A {occasion} gift, {finish}.",
    "Wipe clean with a damp cloth; do not bleach.",
    "Our customers use it as a {occasion} present.",
    "Two years of warranty, spare parts for {number} months.",
    "Every piece is checked by hand and numbered.",
    "Assembly takes {number} minutes, tools are included.",
)
SLOTS = {
    "brand": "Calder|Brenna|Ostrava|Mellin|Tovik|Harrow|Lindqvist|Pemberton|Sorrel|Vantor|Kestrel|Abney|"
    "Dunmore|Fairweather|Galvez|Ishida|Jorvik|Kaldor|Larkin|Montrose|Nyberg|Orsini|Petrov|Quill",
    "product": "mug|notebook|cushion|lamp|backpack|umbrella|apron|wall clock|jigsaw puzzle|scarf|lunch box|"
    "phone case|tea towel|poster|pencil case|shower curtain|water bottle|doormat|tote bag|picture frame|"
    "blanket|money box|door stop|key ring",
    "material": "recycled cotton|bamboo fibre|brushed steel|soft silicone|plywood|glazed stoneware|"
    "organic linen|toughened glass|cork|felted wool",
    "finish": "dishwasher safe|hand finished|double stitched|scratch resistant|matt on all sides|"
    "lined with fleece|water repellent|pleasantly light",
    "packaging": "a flat cardboard sleeve|a padded envelope|a reusable tin|plain brown paper|a zip pouch",
    "number": "12|18|24|36|48|60|90|120|180|250|320|400",
    "occasion": "birthday|house-warming|wedding|farewell|graduation|thank-you",
}


def write_text(factors: Array, random: np.random.Generator) -> tuple[str, str]:
    """Title and description of one item.

    Args:
        factors: the item's text factors, float64 [2]; they choose the theme words and nothing else.
        random: brand, product, theme sentence, fillers and which words of a theme.
    """
    title = "{brand} {product} No. ".format(**_slots(random)) + str(random.integers(1, 100))
    fillers = [FILLERS[i] for i in random.permutation(len(FILLERS))[: random.integers(2, 4)]]
    sentences = [filler.format(**_slots(random)) for filler in fillers]
    place = int(random.integers(len(sentences) + 1))
    template = _one(THEME_SENTENCES, random)
    sentences.insert(place, template.format(*_theme_words(factors, random)))
    return title, " ".join(sentences)


def _theme_words(factors: Array, random: np.random.Generator) -> list[str]:
    """Six distinct words, each theme's number of words falling with its distance from the factors."""
    nearness = np.exp(SHARPNESS * (centres() @ factors) / math.sqrt(2.0))
    exact = THEME_WORDS * nearness / nearness.sum()
    words = np.floor(exact).astype(int)
    for theme in np.argsort(words - exact, kind="stable")[: THEME_WORDS - words.sum()]:
        words[theme] += 1
    # Drawn for all themes alike, so that the other words of a text do not depend on the factors.
    orders = [random.permutation(len(theme.split())) for theme in THEMES.values()]
    chosen = [
        theme.split()[i]
        for theme, order, count in zip(THEMES.values(), orders, words, strict=True)
        for i in order[:count]
    ]
    return [chosen[i] for i in random.permutation(THEME_WORDS)]


def _slots(random: np.random.Generator) -> dict[str, str]:
    return {slot: _one(choices.split("|"), random) for slot, choices in SLOTS.items()}


def _one(choices: Sequence[str], random: np.random.Generator) -> str:
    return choices[int(random.integers(len(choices)))]
