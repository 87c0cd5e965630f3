"""A small market in Binance's own format: two symbols of five days over a month's end."""

import io
import zipfile
from pathlib import Path
from random import Random

START = 1_706_572_800_000  # 2024-01-30
MINUTE_MS = 60_000
LENGTHS = {"2024-01": 2 * 1440, "2024-02": 3 * 1440}


def write_market(folder: Path) -> None:
    folder.mkdir(parents=True)
    for symbol, seed in (("AAAUSDT", 1), ("BBBUSDT", 2)):
        chance, t, price = Random(seed), START, 30_000_00
        for month, minutes in LENGTHS.items():
            lines = []
            for _ in range(minutes):
                close = max(100, price + chance.randint(-3_000, 3_000))
                high, low = max(price, close) + chance.randint(0, 900), min(price, close) - chance.randint(0, 90)
                prices = ",".join(f"{one / 100:.2f}" for one in (price, high, low, close))
                lines.append(f"{t},{prices},{chance.randint(1, 9)}.5,{t + MINUTE_MS - 1},1,1,1,1,0")
                t, price = t + MINUTE_MS, close
            buffer = io.BytesIO()
            with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(f"{symbol}-1m-{month}.csv", "\n".join(lines) + "\n")
            (folder / f"{symbol}-1m-{month}.zip").write_bytes(buffer.getvalue())
