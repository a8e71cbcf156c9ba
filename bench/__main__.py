"""``python -m bench``: measure and print the table."""

from __future__ import annotations

import argparse
import os
import sys

from bench import eviction, large_file, latency, million, realizing, rename, small_files, tree
from bench.report import print_json, print_row
from bench.rig import SIZES

BENCHES = {
    "tree": tree,
    "small": small_files,
    "large": large_file,
    "latency": latency,
    "eviction": eviction,
    "rename": rename,
    "realizing": realizing,
    "million": million,
}


def main() -> int:
    """Run the benchmarks that were asked for; 1 if one of them did not come to its end."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--only", choices=BENCHES, action="append", help="may be given several times")
    parser.add_argument("--json", action="store_true", help="a JSON line for each row")
    options = parser.parse_args()
    size = SIZES[options.size]
    if not options.json:
        print(f"size {size.name}, {os.cpu_count()} processors, loopback, TLS, whole processes")
        print(f"  {'work':<58} {'measured':>17} {'target' if size.is_full else 'full size':<9} beside it")
    failed = False
    for name in options.only or BENCHES:
        try:
            for row in BENCHES[name].rows(size):
                if options.json:
                    print_json(row)
                else:
                    print_row(row, judged=size.is_full)
        except Exception as error:  # noqa: BLE001 - the other benchmarks still run; the exit code tells
            print(f"bench {name}: {error!r}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
