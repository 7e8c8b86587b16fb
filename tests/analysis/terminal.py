"""A terminal that a program believes in: a pseudo-terminal, and the screen that what it writes would leave."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

_PARTS = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+|.", re.DOTALL)


class Screen:
    """What stands on the lines of a terminal; a sequence that it does not know is an error of the test."""

    def __init__(self):
        self.lines, self.row, self.column, self.cursor_shown, self.erased = [""], 0, 0, True, 0

    def write(self, text):
        for found in _PARTS.finditer(text):
            if found[2]:
                self._command(found[1], found[2])
            elif found[0] == "\r":
                self.column = 0
            elif found[0] == "\n":
                self.row += 1
                self.lines += [""] * (self.row + 1 - len(self.lines))
            else:
                assert found[0] != "\x1b", f"unknown sequence {text[found.start() : found.start() + 12]!r}"
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = line[: self.column] + found[0] + line[self.column + len(found[0]) :]
                self.column += len(found[0])

    def _command(self, values, letter):
        if letter == "A":
            self.row = max(self.row - int(values or 1), 0)
        elif letter == "K":
            assert values == "2"
            self.lines[self.row], self.erased = "", self.erased + 1
        elif letter in "hl":
            assert values == "?25"
            self.cursor_shown = letter == "h"
        else:
            assert letter == "m", f"unknown sequence {values}{letter}"

    @property
    def text(self):
        return "\n".join(line.rstrip() for line in self.lines).strip("\n")


class Terminal:
    """A program on a terminal of its own, of 100 columns and 40 lines."""

    def __init__(self, command, **options):
        self.ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
        self.before, self.screen = termios.tcgetattr(self.theirs), Screen()
        self.process = subprocess.Popen(
            command, stdin=self.theirs, stdout=self.theirs, stderr=self.theirs, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 - Ctrl-C must reach it
            **options,
        )  # fmt: skip
        self._rest = b""

    def read(self, seconds):
        """Take in what is written, for so long."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if select.select([self.ours], [], [], min(left, 0.1))[0]:
                self._take()

    def _take(self):
        whole = self._rest + os.read(self.ours, 65536)
        # Neither a letter nor a sequence may be cut where the read ended.
        cut = re.search(rb"(\x1b(\[[?\d;]*)?|[\xc0-\xff][\x80-\xbf]{0,2})$", whole)
        at = cut.start() if cut and not _is_whole(whole[cut.start() :]) else len(whole)
        self._rest = whole[at:]
        self.screen.write(whole[:at].decode())

    def until(self, seen, seconds=60):
        """Read until the screen shows what is asked for."""
        end = time.monotonic() + seconds
        while not seen(self.screen.text):
            assert time.monotonic() < end, f"not seen on\n{self.screen.text}"
            assert self.process.poll() is None, f"ended with {self.process.returncode}\n{self.screen.text}"
            self.read(0.2)

    def press(self, keys):
        os.write(self.ours, keys)

    def ended(self, seconds=60):
        """The exit code, once it has ended and all is read."""
        code = self.process.wait(seconds)
        self.read(0.3)
        return code

    @property
    def after(self):
        """How the terminal is set now."""
        return termios.tcgetattr(self.theirs)

    def close(self):
        self.process.kill()
        self.process.wait()
        for descriptor in (self.ours, self.theirs):
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _is_whole(part):
    try:
        part.decode()
    except UnicodeDecodeError:
        return False
    return not part.startswith(b"\x1b")
