"""Tables inside a page, for download: compressed, because a long one would make the page several times larger."""

import base64
import gzip

import numpy as np
import pandas as pd

MOST_ROWS = 50_000  # of weights these are 0.4 MB in the page; a picture shows no more


def packed_csv(data: pd.DataFrame) -> str:
    """The table as CSV, gzipped, in base64: `runtime.js` makes a file of it. Empty when it has more than `MOST_ROWS` rows.

    Numbers are unrounded: float32 and float64 columns read back as the same float32 and float64. The same table gives the same
    characters. Half a character of a broken token is written as an escape.
    """
    if len(data) > MOST_ROWS:
        return ""
    csv = data.assign(**_shortest(data)).to_csv(index=False, lineterminator="\n").encode("utf-8", "backslashreplace")
    return base64.b64encode(gzip.compress(csv, compresslevel=9, mtime=0)).decode("ascii")


def _shortest(data: pd.DataFrame) -> dict[str, pd.Series]:
    """Columns of float64 that came from float32, as that: the same values in half the digits."""
    with np.errstate(over="ignore"):  # what is too large for float32 is not equal below
        found = {str(name): data[name].astype(np.float32) for name in data.columns if data[name].dtype == np.float64}
    return {name: narrow for name, narrow in found.items() if narrow.astype(np.float64).equals(data[name])}
