"""The speeds of the line, each beside a bare loop: `python -m loadtest.bench_line NAME …`."""

from __future__ import annotations

import importlib
import sys

# Each has `main(arguments) -> exit code`; imported when asked for, since films need FFmpeg.
BENCHES = {
    "spool": "loadtest.bench_spool",
    "ingest": "loadtest.bench_ingest",
    "video": "loadtest.bench_line_video",
    "ledger": "loadtest.bench_ledger",
    "latency": "loadtest.bench_latency",
}


def main() -> int:
    """Run the bench that was named, with what follows its name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHES:
        sys.stderr.write(f"python -m loadtest.bench_line {'|'.join(BENCHES)} [--help]\n")
        return 2
    code: int = importlib.import_module(BENCHES[name]).main(sys.argv[2:])
    return code


if __name__ == "__main__":
    sys.exit(main())
