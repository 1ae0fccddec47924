"""What can be done at each site of a model, found by trying: not every hook point fires, holds or does what its name says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Int
from torch import Tensor

from interp.display import card, table
from interp.errors import SiteError
from interp.models.calling import Hook, check_tokens, trial
from interp.models.writable import firing_problem, holds_pattern, near, refusals, resid_mid_route, trial_tokens
from interp.sites import KINDS, HookedModel, Site, check_model, layers_with

if TYPE_CHECKING:
    import pandas as pd

NO_SITE = "this model has no such hook point"
NOT_NEUTRAL = "an edit that changes nothing changes the logits"
THROUGH_ATTN_OUT = "written through attn_out (its own hook reaches only the MLP)"


@dataclass(frozen=True)
class SiteReport:
    """What was found at one site. `note` says why something is not so, or what to know; "" when there is nothing to say."""

    site: Site
    exists: bool
    fires: int
    readable: bool
    writable: bool
    note: str = ""


@dataclass(frozen=True)
class AuditResult:
    """What can be read and written in one model, site by site; shown as a table, layers with the same findings together."""

    model: str
    reports: tuple[SiteReport, ...]

    def __getitem__(self, site: Site) -> SiteReport:
        for report in self.reports:
            if report.site == site:
                return report
        raise SiteError(f"audit of {site}", "it was not among the sites tried", "Give it with interp.audit(model, sites=[…])")

    def readable(self) -> list[Site]:
        """The sites that probes can read."""
        return [report.site for report in self.reports if report.readable]

    def writable(self) -> list[Site]:
        """The sites that interventions can edit, with all of the model seeing the edit."""
        return [report.site for report in self.reports if report.writable]

    def to_frame(self) -> "pd.DataFrame":
        """One row per site: kind, layer (None for sites without), exists, fires, readable, writable, note."""
        import pandas as pd

        rows = [
            {"kind": report.site.kind, "layer": report.site.layer, **{name: getattr(report, name) for name in _COLUMNS}}
            for report in self.reports
        ]
        return pd.DataFrame(rows, columns=["kind", "layer", *_COLUMNS]).astype({"layer": object})

    def _grouped(self) -> list[tuple[str, ...]]:
        groups: dict[tuple, list[int]] = {}
        for report in self.reports:
            key = (report.site.kind, *(getattr(report, name) for name in _COLUMNS))
            groups.setdefault(key, []).extend([] if report.site.layer is None else [report.site.layer])
        return [
            (kind, _spans(layers), *("yes" if found else "no" for found in (exists, fires == 1, readable, writable)), note)
            for (kind, exists, fires, readable, writable, note), layers in groups.items()
        ]

    def __str__(self) -> str:
        rows = [_HEADER, *self._grouped()]
        widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        return "\n".join([f"audit of {self.model}", *lines])

    def _repr_html_(self) -> str:
        import pandas as pd

        return card(f"audit of {self.model}", table(pd.DataFrame(self._grouped(), columns=list(_HEADER))))


_COLUMNS = ("exists", "fires", "readable", "writable", "note")
_HEADER = ("site", "layers", "exists", "fires once", "readable", "writable", "note")


def audit(model: HookedModel, tokens: Int[Tensor, "batch pos"] | None = None, sites: Sequence[Site] | None = None) -> AuditResult:
    """Try every kind of site at every layer of `model` (or the `sites` given): does it fire, can it be read, can it be written.

    Readable: it exists, fires once and holds what its name says. Writable: also an edit that changes nothing leaves the logits as
    they are, and one that does reaches them, and for `resid_mid` the residual stream too; such edits are what `run` accepts.
    `tokens` (default: a few random ones) are only used to run the model: their first example. The model is left as it was.
    Cost: three forward passes over that example, one over at most 64 rows of 4 tokens per 63 sites, one of 3 rows per layer.
    """
    check_model(model)
    tokens = trial_tokens(model) if tokens is None else tokens
    check_tokens(model, tokens)
    asked = list(sites) if sites is not None else _all_sites(model)
    found = _survey(model, [site for site in asked if site.hook_name in model.hook_dict], tokens[:1])
    names = {id(model.hook_dict[site.hook_name]): site.hook_name for site, seen in found.items() if not seen.problem}
    reasons = refusals(model, list(names.values()), tokens)
    for name in _not_neutral(model, [name for name, reason in reasons.items() if not reason], tokens[:1]):
        reasons[name] = NOT_NEUTRAL
    reports = []
    for site in asked:
        seen = found.get(site, _Seen(0, NO_SITE))
        reason = seen.problem or reasons[names[id(model.hook_dict[site.hook_name])]]
        reports.append(_report(model, site, seen, reason, tokens))
    return AuditResult(type(model).__name__, tuple(reports))


@dataclass(frozen=True)
class _Seen:
    """What a forward pass showed at a site: how often it fired, what is wrong with that, whether a pattern was there."""

    fires: int
    problem: str = ""
    pattern: bool = False


def _report(model: HookedModel, site: Site, seen: _Seen, reason: str, tokens: Tensor) -> SiteReport:
    """`reason` is why the site's hook point cannot be written, or ""."""
    exists = seen.problem != NO_SITE
    if seen.problem:
        return SiteReport(site, exists, seen.fires, False, False, reason)
    if site.kind == "attn_scores" and seen.pattern:
        note = "it holds the pattern (after the softmax), not the scores" + (f"; {reason}" if reason else "")
        return SiteReport(site, True, 1, False, not reason, note)
    if site.kind == "resid_mid" and not reason:
        try:
            note = "" if resid_mid_route(model, site, tokens) == "direct" else THROUGH_ATTN_OUT
        except SiteError as error:
            return SiteReport(site, True, 1, True, False, error.truth)
        return SiteReport(site, True, 1, True, True, note)
    return SiteReport(site, True, 1, True, not reason, reason)


def _survey(model: HookedModel, sites: Sequence[Site], tokens: Tensor) -> dict[Site, _Seen]:
    """What one forward pass shows at every site; site by site when the model refuses some of the hooks."""
    names = {id(model.hook_dict[site.hook_name]): site.hook_name for site in sites}
    patterns: dict[str, bool] = {}

    def look(name: str) -> Hook:
        return lambda activation: patterns.__setitem__(name, holds_pattern(activation))

    try:
        fired = trial(model, tokens, {name: look(name) for name in names.values()})[1]
    except SiteError as error:
        if len(sites) == 1:
            return {sites[0]: _Seen(0, error.truth)}
        return {site: seen for one in sites for site, seen in _survey(model, [one], tokens).items()}
    at = {site: names[id(model.hook_dict[site.hook_name])] for site in sites}
    return {site: _Seen(fired[name], firing_problem(fired[name]), patterns.get(name, False)) for site, name in at.items()}


def _not_neutral(model: HookedModel, names: Sequence[str], tokens: Tensor) -> list[str]:
    """The hook points where returning the activation itself changes the logits beyond rounding."""
    clean = trial(model, tokens, {})[0]

    def neutral(group: Sequence[str]) -> bool:
        return near(trial(model, tokens, {name: Tensor.clone for name in group})[0], clean)

    return [] if neutral(names) else [name for name in names if not neutral([name])]


def _all_sites(model: HookedModel) -> list[Site]:
    """Every kind at every layer, then the hook points with names of their own, unless the model is one of TransformerLens'."""
    n_layers = getattr(getattr(model, "cfg", None), "n_layers", 0)
    layers = {layer for kind in KINDS for layer in layers_with(model, kind)} | set(range(n_layers))
    sites = [
        site
        for kind, (name, _) in KINDS.items()
        for site in ([Site(kind, layer) for layer in sorted(layers)] if "{layer}" in name else [Site(kind)])
    ]
    if type(model).__module__.startswith("transformer_lens."):
        return sites
    covered = {id(model.hook_dict[site.hook_name]) for site in sites if site.hook_name in model.hook_dict}
    return sites + [Site(name) for name, point in model.hook_dict.items() if id(point) not in covered]


def _spans(layers: Sequence[int]) -> str:
    """ "0-3, 5" for [0, 1, 2, 3, 5]."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
