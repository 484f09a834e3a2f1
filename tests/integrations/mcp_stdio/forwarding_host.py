"""A host in a process of its own, so that it can be killed; run as a script.

It starts the command that follows, and passes its own input and output on.
"""

import subprocess
import sys
import threading


def main() -> None:
    server = subprocess.Popen(
        sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )

    def forward() -> None:
        assert server.stdout is not None
        for line in server.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()

    threading.Thread(target=forward, daemon=True).start()
    assert server.stdin is not None
    for line in sys.stdin.buffer:
        server.stdin.write(line)
    server.stdin.close()
    server.wait()


if __name__ == "__main__":
    main()
