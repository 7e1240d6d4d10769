"""Exit with 0 when the program on PORT of this container answers /health with 200."""  # noqa: INP001  # a script, not part of a package

import http.client
import os
import sys

# less than Docker's timeout for the check, so that the reason is said and not cut off
TIMEOUT_SECONDS = 4


def main() -> int:
    """Ask once; the port is the first argument, else the environment's PORT."""
    port = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("PORT", "")
    if not port.isdecimal():
        print("healthcheck: give a port or set PORT", file=sys.stderr)  # noqa: T201  # a command
        return 2
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        answer = response.read(4096).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        print(f"healthcheck: port {port}: {error}", file=sys.stderr)  # noqa: T201  # a command
        return 1
    print(f"{response.status} {answer}")  # noqa: T201  # `docker inspect` shows it
    return 0 if response.status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
