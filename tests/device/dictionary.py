"""Writes the dictionary of manifests into ``attar.h``, as rows of text; run by hand, should the format get another.

python -m tests.device.dictionary
"""

import re

from tests.house.repository import ROOT

HEADER = ROOT / "src/attar/c/attar.h"
DICTIONARY = ROOT / "src/attar/_src/artifact/compact/dictionaries/manifest.bin"
ROW = 84  # bytes of a row, few enough that lines stay short where most need a backslash
BEGIN, END = "/* The preset dictionary of manifests", "/* Return byte i of it. */"


def section() -> str:
    """Return the lines of the header that hold the dictionary."""
    data = DICTIONARY.read_bytes()
    rows = [data[start : start + ROW] for start in range(0, len(data), ROW)]
    texts = ",\n".join(f'    "{_quoted(row)}"' for row in rows)
    return f"""{BEGIN} (2.1), made by tests/device/dictionary.py. Each row ends in a 0 of its own. */
#define ATTAR_PRESET {len(data)}
#define ATTAR_ROW {ROW}
static const char attar_rows[][ATTAR_ROW + 1] = {{
{texts}}};

"""


def _quoted(row: bytes) -> str:
    return "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}" if byte != 34 else '\\"'
        for byte in row
    )


def written() -> str:
    """Return the header with the dictionary of today."""
    return re.sub(
        f"{re.escape(BEGIN)}.*?(?={re.escape(END)})", lambda _: section(), HEADER.read_text(), flags=re.DOTALL
    )


if __name__ == "__main__":
    HEADER.write_text(written())
