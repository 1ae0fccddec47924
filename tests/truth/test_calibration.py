"""The constructed models: numbers on paper, measured; and a calibration that can fail."""

import dataclasses
import math

import pytest
import torch

import interp
from interp.calibration import Calibration, Row, calibrate
from interp.models.constructed import (
    PERIOD,
    all_constructed,
    conv_mixture,
    induction_circuit,
    position_not_content,
    smeared_induction,
    wrong_lag_smear,
)
from interp.probes import head_scores, null_scores


def test_every_probe_on_every_model() -> None:
    calibration = calibrate()
    failed = [row for row in calibration.rows if not row.passed]
    assert not failed, str(Calibration(tuple(failed)))
    assert {row.model for row in calibration.rows} == {made.name for made in all_constructed()}
    assert "induction_circuit" in str(calibration)
    assert f"{len(calibration.rows)} of {len(calibration.rows)} rows passed" in str(calibration)


def test_the_expectations_are_the_numbers_on_paper() -> None:
    circuit = induction_circuit().expected
    assert circuit["induction"][1][0] == 1
    assert circuit["previous_token"][0][0] == 1
    assert circuit["duplicate_token"][1][1] == pytest.approx((1 / 2 + 2 / 3 + 3 / 4) / 3)  # shares with itself: k / (k + 1)
    assert circuit["induction"][0][1] == pytest.approx(sum(1 / (i + 1) for i in range(26, 51)) / 25)
    assert circuit["entropy"][0] == pytest.approx((0.0, sum(math.log(i + 1) for i in range(1, 101)) / 100))
    e = math.exp(4)  # half a share, exponent 8: the two copies and the follower weigh alike
    one = smeared_induction(0.5).expected["induction"][0][0]
    assert one == pytest.approx(sum(e / (3 * e + i + 1 - 3) for i in range(27, 51)) / 25 + e / (3 * e + 24) / 25, abs=2e-3)
    assert smeared_induction(1.0).expected["induction"][0][0] > 0.98
    assert wrong_lag_smear().expected["induction"][0][0] < 0.01


def test_a_wrong_model_fails_calibration() -> None:
    made = smeared_induction(0.75)
    with torch.no_grad():
        made.model.blocks[0].attn.alpha.add_(0.01)
    rows = {row.probe: row for row in calibrate([made]).rows}
    assert not rows["key_smear"].passed
    assert not rows["induction"].passed
    assert not calibrate([made]).passed


def test_rows_compare_undefined_values_and_sizes() -> None:
    def row(expected: tuple, measured: tuple) -> Row:
        return Row("m", "p", expected, measured, 1e-5, False)

    assert row((math.nan, 1.0), (math.nan, 1.0)).passed
    assert not row((math.nan,), (0.0,)).passed
    assert not row((0.0,), (math.nan,)).passed
    assert not row((1.0,), (1.0, 1.0)).passed


@pytest.mark.parametrize("share", [0.0, 0.3, 0.8, 1.0])
def test_smear_recovers_the_share(share: float) -> None:
    assert interp.key_smear(smeared_induction(share).model).item() == pytest.approx(share, abs=1e-6)


def test_mixture_recovers_the_taps() -> None:
    assert interp.key_smear(conv_mixture(0.3, 0.9).model).item() == pytest.approx(0.25, abs=1e-6)


def test_position_is_told_from_content_by_another_period_and_by_the_null() -> None:
    fixed = position_not_content(period=17).model
    assert interp.induction_scores(fixed, period=17, n_sequences=4).item() == pytest.approx(1, abs=1e-6)
    assert interp.induction_scores(fixed, period=PERIOD).item() < 1e-6
    assert null_scores(fixed, period=17, n_sequences=4).values[1, 0].item() == pytest.approx(1, abs=1e-6)
    real = induction_circuit().model
    for period in (17, PERIOD):
        score = head_scores(real, period=period, n_sequences=8).values[0, 1, 0]
        null = null_scores(real, period=period, n_sequences=8).values[1, 0, 1, 0]
        assert score == pytest.approx(1, abs=1e-6)
        assert null < 0.15


def test_without_the_previous_token_head_there_is_no_induction() -> None:
    made = induction_circuit()
    with torch.no_grad():
        made.model.blocks[0].attn.W_O[0] = 0
    assert interp.induction_scores(made.model).values[1, 0] < 0.05
    assert not calibrate([made]).passed


def test_sizes_can_be_chosen_and_widths_differ() -> None:
    small = induction_circuit(d_vocab=27)
    config = small.model.cfg
    assert config.d_model != config.d_head != config.d_vocab
    assert calibrate([small]).passed
    assert not calibrate([dataclasses.replace(small, expected=induction_circuit(d_vocab=28).expected)]).passed
