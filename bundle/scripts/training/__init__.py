# SPDX-License-Identifier: Apache-2.0
"""Checkpoints, handlers, history, several processes."""

from .bfloat16 import BFloat16Inferer, as_float32
from .checkpoint_handler import TrainingState
from .checkpoints import ModelLoader, keep_copy, kept_copies, load_optimizer, load_weights, start_from
from .distributed import any_rank, is_lost_process, local_device, on_first_rank, start, stop, validation_sampler
from .handlers import MatchingPicture, ProgressBar, StopAtBrokenLoss
from .history import History, step_scalars
from .interruptions import Interruptions
from .output_folder import goes_on, prepare_output, write_settings
from .prepare_batch import PrepareKnownMaps
from .tracking import Files, check_tracking, complete_tracking
from .trainer import TermsTrainer

__all__ = [
    "BFloat16Inferer",
    "Files",
    "History",
    "Interruptions",
    "MatchingPicture",
    "ModelLoader",
    "PrepareKnownMaps",
    "ProgressBar",
    "StopAtBrokenLoss",
    "TermsTrainer",
    "TrainingState",
    "any_rank",
    "as_float32",
    "check_tracking",
    "complete_tracking",
    "goes_on",
    "is_lost_process",
    "keep_copy",
    "kept_copies",
    "load_optimizer",
    "load_weights",
    "local_device",
    "on_first_rank",
    "prepare_output",
    "start",
    "start_from",
    "step_scalars",
    "stop",
    "validation_sampler",
    "write_settings",
]
