"""Worked example: some of the tokens that the model reads are random; what it has to predict is not.

interp.fit(config, callbacks=[CorruptInputs(share=0.1)])
"""

import torch
from torch import Tensor

from interp.training import Callback, Training


class CorruptInputs(Callback):
    """Replaces a random `share` of the input tokens after BOS by tokens drawn uniformly from the vocabulary."""

    def __init__(self, share: float = 0.1):
        self.share = share

    def on_batch(self, training: Training, inputs: Tensor) -> Tensor:
        chosen = torch.rand(inputs.shape) < self.share
        chosen[:, 0] = False
        return torch.where(chosen, torch.randint_like(inputs, training.data.d_vocab), inputs)
