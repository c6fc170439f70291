"""The text of a large JSON file, of which only a window is held at a time."""

import codecs
import json
import re
from json.decoder import JSONDecoder
from typing import Any, BinaryIO

_CHUNK = 1 << 20
_LONGEST = 1 << 23
_MARGIN = 16
_OVERLAP = 1 << 16
_BLANKS = re.compile(r"[ \t\r\n]*")
# what `surrogateescape` makes of a byte that is no UTF-8
_BAD_BYTE = re.compile("[\udc80-\udcff]")


NOT_JSON = "not JSON"
NOT_UTF8 = "not UTF-8"


class Damage(ValueError):
    """What is wrong, and in which line; reason: what it is counted under."""

    def __init__(self, what: str, line: int, reason: str = NOT_JSON) -> None:
        super().__init__(f"{what}, line {line}")
        self.reason = reason


class JsonWindow:
    """A place in a JSON file, and the text from there as far as it has been needed.

    Attributes: text, of which what lies before `place` is done with; line: that of `place`, from 1.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.text = ""
        self.index = 0
        self.line = 1
        self._file = file
        self._ended = False
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode
        self._json = JSONDecoder()
        self.more()

    def more(self) -> bool:
        """Let go of what is done with and read on, as much again as is held, so that growing takes linear time.

        False at the end of the file. Raises OSError.
        """
        if self._ended:
            return False
        held = self.text[self.index :]
        read = self._file.read(max(_CHUNK, len(held)))
        self._ended = not read
        self.text, self.index = held + self._decode(read, self._ended), 0
        return True

    def move(self, index: int) -> None:
        """Go to a place of the text."""
        self.line += self.text.count("\n", self.index, index)
        self.index = index

    def peek(self) -> str:
        """The next character that is no blank, which becomes the place; "" at the end of the file."""
        while True:
            blanks = _BLANKS.match(self.text, self.index)
            if blanks is not None:
                self.move(blanks.end())
            if self.index < len(self.text) or not self.more():
                return self.text[self.index : self.index + 1]

    def value(self) -> tuple[Any, int]:
        """The JSON value at the place, and where it ends; the place stays.

        Raises Damage where there is none, where it holds bytes that are not UTF-8, or where it is longer than 8 million
        characters, which a value is behind which a bracket or a quote is missing.
        """
        while True:
            try:
                value, end = self._json.raw_decode(self.text, self.index)
            except RecursionError:
                raise Damage("nested too deep", self.line) from None
            except json.JSONDecodeError as error:
                may_go_on = error.msg.startswith("Unterminated string") or error.pos + _MARGIN >= len(self.text)
                if not (may_go_on and self._may_read_on()):
                    raise self._damage(error) from error
            except ValueError as error:  # a number of thousands of digits
                raise Damage(str(error), self.line) from error
            else:
                # a number may go on where the text ends: "1." and "1e" are none yet
                if end + _MARGIN < len(self.text) or not self._may_read_on():
                    self._refuse_bad_bytes(end)
                    return value, end

    def behind(self, end: int) -> tuple[str, int]:
        """The next character from `end` on that is no blank, "" at the end of the file, and where `end` is now."""
        while True:
            blanks = _BLANKS.match(self.text, end)
            stop = end if blanks is None else blanks.end()
            index = self.index
            if stop < len(self.text) or not self.more():
                return self.text[stop : stop + 1], end
            end -= index

    def find(self, pattern: re.Pattern[str], first: int = 1) -> re.Match[str] | None:
        """Go to the first match from the place on and give it, or to the end of the file and None.

        pattern: where it has named groups, the one that matches is gone to. A match of more than 65,536 characters may
        be missed. first: how many characters behind the place it may begin.
        """
        start = self.index + first
        while True:
            found = pattern.search(self.text, min(start, len(self.text)))
            # one at the very end of what is held might be longer, or be none
            if found is not None and (found.end() < len(self.text) or self._ended):
                self.move(found.start(found.lastgroup or 0))
                return found
            kept = max(start, len(self.text) - _OVERLAP) if found is None else found.start()
            self.move(min(kept, len(self.text)))
            start = self.index
            if not self.more():
                self.move(len(self.text))
                return None
            start = 0

    def _may_read_on(self) -> bool:
        if len(self.text) - self.index > _LONGEST:
            raise Damage(f"longer than {_LONGEST} characters: a bracket or a quote may be missing", self.line)
        return self.more()

    def _damage(self, error: json.JSONDecodeError) -> Damage:
        self._refuse_bad_bytes(error.pos + 1)
        line = self.line + self.text.count("\n", self.index, error.pos)
        near = self.text[error.pos : error.pos + _MARGIN]
        what = error.msg.removesuffix(" at").removesuffix(" starting")
        return Damage(f"{what} before {near!r}" if near else f"{what} before the end of the file", line)

    def _refuse_bad_bytes(self, end: int) -> None:
        bad = _BAD_BYTE.search(self.text, self.index, end)
        if bad is not None:
            byte, line = ord(bad.group()) - 0xDC00, self.line + self.text.count("\n", self.index, bad.start())
            raise Damage(f"the byte 0x{byte:02x}", line, NOT_UTF8)
