"""Reports: figures and a self-contained page, made from results alone."""

from interp.report.atlas import HeadAtlas
from interp.report.blocks import AttentionMaps, ColoredTokens, Figure, Outcome, Prose, Row, Table, Verdict
from interp.report.figures import bar_chart, curve_grid, curves, filter_distributions, heat_map, kernel_maps, score_bars
from interp.report.grid import Grid
from interp.report.index import refresh_index, write_index
from interp.report.next_tokens import NextTokens
from interp.report.page import Page, Section, render_document, render_page, write_page
from interp.report.plotting import Drawn
from interp.report.rendering import Block
from interp.report.slider import StepSlider
from interp.report.token_rows import StackedTokens, TokenRow

__all__ = [
    "AttentionMaps",
    "Block",
    "ColoredTokens",
    "Drawn",
    "Figure",
    "Grid",
    "HeadAtlas",
    "NextTokens",
    "Outcome",
    "Page",
    "Prose",
    "Row",
    "Section",
    "StackedTokens",
    "StepSlider",
    "Table",
    "TokenRow",
    "Verdict",
    "bar_chart",
    "curve_grid",
    "curves",
    "filter_distributions",
    "heat_map",
    "kernel_maps",
    "render_document",
    "refresh_index",
    "render_page",
    "score_bars",
    "write_index",
    "write_page",
]
