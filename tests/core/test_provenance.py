"""The hash of the weights: all that decides the numbers is in it."""

import torch

from interp.models import ConvAttn
from interp.provenance import weights_hash


def test_a_masked_tap_changes_the_hash() -> None:
    """The mask is a buffer that is not saved with the weights."""
    torch.manual_seed(0)
    whole, masked = (ConvAttn(d_vocab=7, d_model=6, n_heads=2, masked_taps=taps) for taps in ((), (-1,)))
    masked.load_state_dict(whole.state_dict())
    assert weights_hash(whole) != weights_hash(masked)
    masked.conv.mask.copy_(whole.conv.mask)
    assert weights_hash(whole) == weights_hash(masked)
