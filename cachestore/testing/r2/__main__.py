"""`python -m cachestore.testing.r2`: a double in a process of its own.

Prints one line of JSON with endpoint, bucket and keys when it is ready, and runs until a signal,
or with `--with-stdin` until its standard input ends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading

from cachestore.testing.r2.double import R2Double


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m cachestore.testing.r2", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--bucket", default="demo")
    parser.add_argument("--access-key", default=None, help="random if not given")
    parser.add_argument(
        "--secret-key",
        default=os.environ.get("R2_DOUBLE_SECRET_KEY"),
        help="default: R2_DOUBLE_SECRET_KEY of the environment, else random",
    )
    parser.add_argument(
        "--write-interval", type=float, default=None, help="seconds between writes of a key"
    )
    parser.add_argument("--admin", action="store_true", help="let buckets be made and listed")
    parser.add_argument("--with-stdin", action="store_true", help="end when standard input ends")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    try:
        double = R2Double(
            options.bucket,
            host=options.host,
            port=options.port,
            access_key=options.access_key,
            secret_key=options.secret_key,
            write_interval=options.write_interval,
            admin=options.admin,
        )
    except (ImportError, OSError, ValueError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    with double:
        names = ("endpoint", "bucket", "access_key", "secret_key", "region")
        print(json.dumps({name: getattr(double, name) for name in names}), flush=True)
        if options.with_stdin:
            threading.Thread(target=_watch, args=(ended,), daemon=True).start()
        ended.wait()
    return 0


def _watch(ended: threading.Event) -> None:
    sys.stdin.buffer.read()
    ended.set()


if __name__ == "__main__":
    sys.exit(main())
