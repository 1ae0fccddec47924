"""Worked example: each step trains a random half of the layers; the others do not move at all.

interp.fit(config, callbacks=[FreezeLayers(share=0.5)])
"""

import torch

from interp.training import Callback, Training


class FreezeLayers(Callback):
    """Freezes each layer with probability `share`, anew at each step. Frozen before the forward pass, a layer has no gradient,
    so that neither momentum nor weight decay moves it."""

    def __init__(self, share: float = 0.5):
        self.share = share

    def before_forward(self, training: Training) -> None:
        for layer in training.model.blocks:
            layer.requires_grad_(bool(torch.rand(()) >= self.share))

    def on_end(self, training: Training) -> None:
        training.model.blocks.requires_grad_(True)
