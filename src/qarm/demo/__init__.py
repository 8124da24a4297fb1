"""Demo world: a generated catalogue and click log with a known ground truth.

Every item has factors in four sources: what its text, picture and sound show, and what nothing
shows. A user's tastes weigh those factors, or the groups around which items lie, and choices follow
the sum plus the item's popularity. About a tenth of the items are cold: nobody can choose them
before the split time.

    plant    factors, groups, tastes, popularity, cold items
    choice   who chooses what and when
    text, picture, sound    show an item's factors among much that means nothing
    build    writes it all to a folder
    truth    scores with the planted truth
"""

from qarm.demo.build import SIZES, World, build_world
from qarm.demo.ground_truth import PARTS, SOURCES, WorldSpec
from qarm.demo.oracle import true_scores

__all__ = ["PARTS", "SIZES", "SOURCES", "World", "WorldSpec", "build_world", "true_scores"]
