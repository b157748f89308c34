"""Freeze the word list: words.txt, from the two Debian lists and our own.

    python xtask/search_table/words.py AMERICAN BRITISH

takes the `american-english` and `british-english` of Debian's wamerican and wbritish, keeps what is lower case and
plain, adds own-words.txt, and writes words.txt. Run only to take newer lists; the table is made from words.txt.
"""

import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    words = set((HERE / "own-words.txt").read_text().split())
    for name in sys.argv[1:]:
        for word in Path(name).read_text().split():
            if word.isascii() and word.isalpha() and word.islower() and len(word) > 2:
                words.add(word)
    (HERE / "words.txt").write_text("".join(f"{word}\n" for word in sorted(words)))


if __name__ == "__main__":
    main()
