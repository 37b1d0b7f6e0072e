"""What the programs that measure PyTorch share: its imports, timed, and the numbers of the process."""

from __future__ import annotations

import os
import resource
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

started = time.perf_counter()
import numpy
import peft
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

transformers.utils.logging.disable_progress_bar()
import_seconds = time.perf_counter() - started

versions = {"torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__}


def peak_rss_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def prepare(threads: int) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(threads)
    torch.manual_seed(0)


def read_pictures(pixels: dict) -> torch.Tensor:
    """[rows, channels, height, width], from the raw file that a rows file names."""
    values = numpy.fromfile(pixels["file"], dtype=numpy.float32)
    return torch.from_numpy(values.reshape(-1, *pixels["shape"]))


def load_model(directory: Path, *, pictures: bool, dtype: torch.dtype):
    auto = AutoModelForImageTextToText if pictures else AutoModelForCausalLM
    return auto.from_pretrained(directory, dtype=dtype)
