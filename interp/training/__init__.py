"""Training: settings, the loop, run folders, and several runs side by side."""

from interp.training.ablation import AblatedAttention
from interp.training.callbacks import Callback
from interp.training.catalog import Runs, find_runs
from interp.training.checkpoints import kept_checkpoints, open_checkpoint
from interp.training.config import RunConfig, TrainConfig
from interp.training.fit import FinishedRun, fit
from interp.training.folder import is_finished, open_run, read_metrics, read_provenance, run_id
from interp.training.grid import fit_all
from interp.training.hub import pull_run, push_run
from interp.training.loop import Training
from interp.training.phase import PhaseChange, phase_change
from interp.training.plans import Plan, read_plans
from interp.training.plots import plot_metrics
from interp.training.step_losses import StepLosses, read_step_losses
from interp.training.timeline import timeline
from interp.training.verify import read_config, verify_run

__all__ = [
    "AblatedAttention",
    "Callback",
    "FinishedRun",
    "PhaseChange",
    "Plan",
    "RunConfig",
    "Runs",
    "StepLosses",
    "TrainConfig",
    "Training",
    "find_runs",
    "fit",
    "fit_all",
    "is_finished",
    "kept_checkpoints",
    "open_checkpoint",
    "open_run",
    "phase_change",
    "plot_metrics",
    "pull_run",
    "push_run",
    "read_config",
    "read_metrics",
    "read_plans",
    "read_provenance",
    "read_step_losses",
    "run_id",
    "timeline",
    "verify_run",
]
