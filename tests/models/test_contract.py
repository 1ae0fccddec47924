"""The same promises on every kind of model: what is read is what is there, edits do what they say, and nothing else changes."""

import pytest
import torch

import interp
from interp.errors import DataError, ModelError
from interp.sites import Site, layers_with
from tests.models.zoo import (
    KINDS_OF_MODEL,
    N_HEADS,
    N_LAYERS,
    OUTPUT,
    Edits,
    Reads,
    audited,
    logits,
    own_model,
    read,
    tokens,
    zoo,
)


def first_layer(name: str) -> list[Site]:
    return [site for site in audited(name).writable() if site.layer in (None, 0)]


every_kind = pytest.mark.parametrize("name", KINDS_OF_MODEL)


@every_kind
def test_reads_what_transformer_lens_caches(name: str) -> None:
    model = zoo(name)
    sites = audited(name).readable()
    names = [site.hook_name for site in sites]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens(), names_filter=names)
    assert len(sites) > 8
    for site, found in read(model, *sites).items():
        assert torch.equal(found, cache[site.hook_name]), site


@every_kind
def test_an_edit_that_changes_nothing_leaves_the_logits_bit_equal(name: str) -> None:
    """Bit-equal on all: where bridges convert (heads in and out of one axis) they only reshape."""
    model = zoo(name)
    unedited = logits(model)
    with torch.no_grad():
        assert torch.equal(unedited, model(tokens()))
    sites = audited(name).writable()
    assert len(sites) > 8
    assert torch.equal(logits(model, Edits(lambda activation: activation, *sites)), unedited)


@every_kind
def test_every_writable_site_reaches_the_logits(name: str) -> None:
    model = zoo(name)
    unedited = logits(model)
    for site in first_layer(name):
        assert not torch.allclose(logits(model, Edits(lambda activation: -2 * activation, site)), unedited, atol=1e-3), site


@every_kind
@pytest.mark.parametrize("head", [0, N_HEADS - 1])
def test_zeroing_a_head_takes_away_what_it_writes(name: str, head: int) -> None:
    model = zoo(name)
    for layer in layers_with(model, "z"):
        z, out = Site("z", layer), Site("attn_out", layer)

        def zeroed(activation: torch.Tensor) -> torch.Tensor:
            activation[:, :, head] = 0
            return activation

        before = read(model, z, out)
        after = read(model, out, edits=[Edits(zeroed, z)])[out]
        written = before[z][:, :, head] @ model.blocks[layer].attn.W_O[head].detach()
        assert written.abs().max() > 1e-3
        torch.testing.assert_close(before[out] - after, written, rtol=1e-4, atol=1e-5)


@every_kind
def test_results_do_not_depend_on_the_batch_size(name: str) -> None:
    model = zoo(name)
    sites = audited(name).readable()
    whole, parts = read(model, OUTPUT, *sites), read(model, OUTPUT, *sites, batch_size=2)
    for site, found in whole.items():
        torch.testing.assert_close(parts[site], found, rtol=1e-4, atol=1e-5)


@every_kind
def test_the_probes_run_without_a_tokenizer(name: str) -> None:
    """Trap 9: TransformerLens' own induction tools need a tokenizer, a vocabulary of 20000, or a GPU."""
    model = zoo(name)
    scores = interp.induction_scores(model, period=7, n_sequences=3)
    assert scores.values.shape == (len(layers_with(model, "pattern")), N_HEADS)
    assert ((scores.values >= 0) & (scores.values <= 1)).all()
    smear = interp.key_smear(model, n_examples=5, length=6).values
    assert ((smear >= 0) & (smear <= 1)).all()
    ids = interp.repeated_tokens(model, n_sequences=3, period=7)
    assert interp.repeat_loss(model, ids, 7).values.isfinite().all()


@every_kind
def test_keys_of_the_first_layer_do_not_depend_on_the_previous_token_unless_mixed(name: str) -> None:
    smear = interp.key_smear(zoo(name), n_examples=5, length=6).at(layer=0).values
    if name in ("conv-attn", "smeared-key"):
        assert (smear > 0.1).all()
    else:
        assert (smear == 0).all()


@every_kind
def test_an_edit_gets_the_tokens_of_its_own_batch(name: str) -> None:
    model, seen = zoo(name), []

    class Notes(Edits):
        def edit(self, activation, site, tokens):  # noqa: ANN001, ANN202
            seen.append(tokens)
            return activation

    logits(model, Notes(lambda activation: activation, Site("z", 0)), batch_size=2)
    assert torch.equal(torch.cat(seen), tokens()) and len(seen) == 2


@every_kind
def test_edits_come_before_reads_and_follow_each_other(name: str) -> None:
    model, site = zoo(name), Site("z", 0)
    double, add = Edits(lambda z: z.mul_(2), site), Edits(lambda z: z + 1, site)
    before = read(model, site)[site]
    assert torch.equal(read(model, site, edits=[double, add])[site], before * 2 + 1)


@every_kind
def test_edited_under_gradients_equals_run(name: str) -> None:
    from interp.running import edited

    model = zoo(name)
    for site in first_layer(name):
        edit = Edits(lambda activation: activation * 1.5, site)
        with edited(model, [edit]) as same, torch.enable_grad():
            with_gradients = same(tokens())
        assert with_gradients.requires_grad
        torch.testing.assert_close(with_gradients, logits(model, edit), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [kind for kind in KINDS_OF_MODEL if kind.values[0] in ("native", "gpt2", "llama", "own")])
def test_all_layers_are_there(name: str) -> None:
    assert layers_with(zoo(name), "resid_post") == list(range(N_LAYERS))


WRONG_TOKENS = {
    "no examples": tokens()[:0],
    "no positions": tokens()[:, :0],
    "float": tokens().float(),
    "bool": tokens() > 3,
    "uint8": tokens().to(torch.uint8),
    "complex": tokens().to(torch.complex64),
    "one axis": tokens()[0],
    "a list": [[1, 2]],
    "text": "hello",
    "None": None,
    "too long": tokens(pos=99),
    "beyond the vocabulary": tokens() + 99,
    "negative": -tokens(),
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("wrong", WRONG_TOKENS)
def test_wrong_tokens_are_a_data_error_everywhere(wrong: str) -> None:
    model, given = zoo("gpt2"), WRONG_TOKENS[wrong]
    with pytest.raises(DataError):
        interp.run(model, given, [Reads(OUTPUT)])
    with pytest.raises(DataError):
        interp.metrics.metric_values(model, given, interp.metrics.loss())
    with pytest.raises(DataError):
        interp.ablation_sweep(model, given, interp.metrics.loss(), progress=False)
    if given is not None:
        with pytest.raises(DataError):
            interp.audit(model, given)
        with pytest.raises(DataError), interp.ablated(model, heads=[(0, 1)], reference=given):
            pass


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_size_below_one_is_refused(size: int) -> None:
    with pytest.raises(DataError, match="at least one"):
        read(zoo("attn-attn"), OUTPUT, batch_size=size)


def test_a_model_that_puts_out_nan_is_said_to_do_so() -> None:
    model = own_model()
    model.unembed.bias.data.fill_(torch.nan)
    for site in (Site("z", 0), Site("resid_mid", 1)):
        with pytest.raises(ModelError, match="NaN before anything is edited"):
            logits(model, Edits(lambda x: x, site))
    with pytest.raises(ModelError, match="NaN before anything is edited"):
        interp.audit(model)


def test_edits_find_the_tokens_among_named_arguments() -> None:
    """`return_type="logits"` may come first."""
    model, seen = zoo("gpt2"), []

    class Sees(Edits):
        def edit(self, activation: torch.Tensor, site: Site, ids: torch.Tensor) -> torch.Tensor:
            seen.append(ids)
            return activation

    with torch.no_grad(), interp.edited(model, [Sees(None, Site("z", 0))]):
        model(return_type="logits", input=tokens())
    assert torch.equal(seen[0], tokens())
