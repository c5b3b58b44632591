"""Prints of a file what ``decode.c`` prints: each tensor, and the CRC-32 of its values.

python examples/c/decode.py FILE.attar
"""

import json
import sys
import zlib

from attar import open_artifact


def main() -> None:
    """Read the file that the command line names."""
    artifact = open_artifact(sys.argv[1])
    kinds = {record.name: record.value.kind for record in artifact.manifest.tensors}
    for name in artifact.names:
        values = artifact.tensor(name).dense()
        shape = ", ".join(map(str, values.shape))
        little = values.astype(values.dtype.newbyteorder("<")).tobytes()
        print(f"{json.dumps(name, ensure_ascii=False)[1:-1]} ({shape}) {kinds[name]} {zlib.crc32(little):08x}")


if __name__ == "__main__":
    main()
