"""Pipeline: check, mine, align, embed, quantize, retrieve, train and report, in this order.

Each stage reads what earlier stages wrote, works in a folder that nobody sees until it is finished,
and is skipped when its inputs and settings are those of the last time.
"""

from qarm.pipeline.check import check_input
from qarm.pipeline.config_proposal import propose_config, write_proposal
from qarm.pipeline.plan import plan_stages
from qarm.pipeline.run import run_stages
from qarm.pipeline.stage_run import Done
from qarm.pipeline.stages import STAGES, VECTORS

__all__ = [
    "STAGES",
    "VECTORS",
    "Done",
    "check_input",
    "plan_stages",
    "propose_config",
    "run_stages",
    "write_proposal",
]
