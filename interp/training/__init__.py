"""Training: settings, the loop, run folders, and several runs side by side."""

from interp.training.config import RunConfig, TrainConfig
from interp.training.fit import FinishedRun, fit
from interp.training.folder import is_finished, open_run, read_metrics, read_provenance, run_id
from interp.training.grid import fit_all
from interp.training.timeline import timeline

__all__ = [
    "FinishedRun",
    "RunConfig",
    "TrainConfig",
    "fit",
    "fit_all",
    "is_finished",
    "open_run",
    "read_metrics",
    "read_provenance",
    "run_id",
    "timeline",
]
