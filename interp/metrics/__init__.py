"""Metrics: what a model's logits are worth, one number per example.

A `Metric` says what it reads (`reads`: which positions, which vocabulary ids), so that a sweep need compute nothing else, and
holds whatever belongs to each example (answers, reference runs), so that `select` can cut it to the examples of a batch. Any
callable `(logits, tokens) -> one number per example` is accepted wherever a metric is: it is opaque and reads everything.
"""

from interp.metrics.base import Metric, MetricLike, Reads, as_metric, from_callable
from interp.metrics.standard import Normalized, accuracy, kl, logit_diff, loss, normalized, prob
from interp.metrics.values import MetricValues, kl_from_run, metric_values
from interp.metrics.weighted import logit, weighted_prob

__all__ = [
    "Metric",
    "MetricLike",
    "MetricValues",
    "Normalized",
    "Reads",
    "accuracy",
    "as_metric",
    "from_callable",
    "kl",
    "kl_from_run",
    "logit",
    "logit_diff",
    "loss",
    "metric_values",
    "normalized",
    "prob",
    "weighted_prob",
]
