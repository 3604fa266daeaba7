"""Another shop's data: what the tutorial starts from. One CSV with semicolons, as a German web shop's till exports it.

It is the world of world.py in foreign clothes: the same habits, without stores, promotions, products or customers, with other names,
ids with dashes and umlauts, local times without a zone (the clocks change on 2025-03-30), and decimal commas.

    Bestellung;Position;Kundennummer;Artikel;Menge;Einzelpreis;Rabatt;Bestellt am;Status
    2025-000017;1;K-Müller-03;AÖ-017;1;3,99;0,00;02.02.2025 11:32;bezahlt
"""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd

from pipeline_assets_tests.world import FIRST_DAY as WORLDS_FIRST_DAY
from pipeline_assets_tests.world import World

FIRST_DAY, LAST_DAY = date(2025, 2, 2), date(2025, 4, 19)  # Sunday to Saturday, 77 days
NAMES = ("Müller", "Weiß", "Jäger", "Groß")


def orders(seed: int = 11) -> pd.DataFrame:
    """The export, all values as text; every 50th line was cancelled and repeats a line that was not."""
    lines = World(seed).purchases
    shift = pd.Timestamp(FIRST_DAY) - pd.Timestamp(WORLDS_FIRST_DAY)
    # the wall clock of New York becomes that of Berlin: 11:32 there is 11:32 here
    local = lines["event_ts"].dt.tz_convert("America/New_York").dt.tz_localize(None) + shift
    customer = lines["customer_id"].str[1:].astype(int)
    product = lines["product_id"].str[1:].astype(int)
    price = (lines["amount"] + lines["discount"]) / lines["quantity"]
    frame = pd.DataFrame(
        {
            "Bestellung": "2025-" + (lines["order_id"].factorize()[0] + 1).astype(str),
            "Position": (lines.groupby("order_id").cumcount() + 1).astype(str),
            "Kundennummer": [f"K-{NAMES[n % len(NAMES)]}-{n:02}" for n in customer],
            "Artikel": [f"AÖ-{n:03}" for n in product],
            "Menge": lines["quantity"].astype(int).astype(str),
            "Einzelpreis": price.map("{:.2f}".format).str.replace(".", ","),
            "Rabatt": lines["discount"].map("{:.2f}".format).str.replace(".", ","),
            "Bestellt am": local.dt.strftime("%d.%m.%Y %H:%M"),
            "Status": "bezahlt",
        }
    )
    frame = frame[(local >= pd.Timestamp(FIRST_DAY)) & (local < pd.Timestamp(LAST_DAY) + pd.Timedelta(days=1))]
    cancelled = frame[::50].assign(Status="storniert")
    return pd.concat([frame, cancelled]).sort_values(["Bestellung", "Position"], kind="stable").reset_index(drop=True)


def export(path: Path) -> pd.DataFrame:
    """Write the export as a folder's one file; returns what was written."""
    frame = orders()
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, sep=";", index=False)
    return frame
