"""Pages about a model, made by measuring it: `interp.overview`, which `interp report` writes."""
