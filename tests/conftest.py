"""Settings of every test: one thread, as small tensors on shared cores are slower with more."""

import torch

torch.set_num_threads(1)
