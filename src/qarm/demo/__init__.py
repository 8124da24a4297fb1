"""Demo world: a generated catalogue and click log with a known ground truth.

Every item has factors in four sources: what its text, picture and sound show, and what nothing
shows. A user's tastes weigh those factors, or the groups around which items lie, and choices follow
the sum plus the item's popularity. About a tenth of the items are cold: nobody can choose them
before the split time.

    ground_truth      factors, groups, tastes, popularity, cold items
    click_simulation  who chooses what and when
    text, image, audio    show an item's factors among much that means nothing
    build             writes it all to a folder
    oracle            scores by the ground truth
"""

from qarm.demo.build import SIZES, DemoWorld, build_world
from qarm.demo.ground_truth import PARTS, SOURCES, WorldSpec
from qarm.demo.oracle import true_scores

__all__ = ["PARTS", "SIZES", "SOURCES", "DemoWorld", "WorldSpec", "build_world", "true_scores"]
