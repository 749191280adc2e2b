"""Says whether another process holds a shared lock on a SQLite file (fcntl(2))."""

import fcntl
import struct
import sys

with open(sys.argv[1], "rb") as file:
    request = struct.pack("@hhqqi4x", fcntl.F_WRLCK, 0, 0x40000002, 510, 0)
    kind = struct.unpack("@hhqqi4x", fcntl.fcntl(file, fcntl.F_GETLK, request))[0]
print("free" if kind == fcntl.F_UNLCK else "locked")
