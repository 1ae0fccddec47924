"""Reports: figures and a self-contained page, made from results alone."""

from interp.report.blocks import AttentionMaps, ColoredTokens, Figure, Outcome, Prose, Row, Table, Verdict
from interp.report.figures import curve_grid, curves, filter_distributions, heat_map, kernel_maps, score_bars
from interp.report.page import Page, Section, render_page, write_page
from interp.report.rendering import Block

__all__ = [
    "AttentionMaps",
    "Block",
    "ColoredTokens",
    "Figure",
    "Outcome",
    "Page",
    "Prose",
    "Row",
    "Section",
    "Table",
    "Verdict",
    "curve_grid",
    "curves",
    "filter_distributions",
    "heat_map",
    "kernel_maps",
    "render_page",
    "score_bars",
    "write_page",
]
