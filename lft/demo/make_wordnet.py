"""Rebuild wordnet.jsonl: common English words with the first definition of their first meaning in WordNet 3.0.

    apt-get download wordnet-base && python make_wordnet.py wordnet-base_*.deb wordnet.jsonl

Version 1:3.0-37 gives the file byte for byte. "Common" is how often the first meaning was tagged (cntlist.rev: sense,
number, count). A word stands once, as its most used part of speech; names, examples, (remarks) are left out.
"""

import hashlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PARTS = {"noun": ("noun", 600), "verb": ("verb", 270), "adj": ("adjective", 170), "adv": ("adverb", 60)}  # rows of each
SENSE_PARTS = {"1": "noun", "2": "verb", "3": "adj", "4": "adv", "5": "adj"}  # the digit after "%" in a sense key
UNFIT = re.compile("sex|genital|copulat|prostitut|insult|compliment|murder|rape|kill|to die|e more than|[^ -~]|[`:]")


def words_by_use(root: Path) -> list[tuple[str, str]]:
    """(word, its most used part of speech), the most common first."""
    best: dict[str, tuple[int, str]] = {}
    for line in (root / "cntlist.rev").read_text().splitlines():
        word, sense, number, count = line.replace("%", " ", 1).split()
        if number == "1" and re.fullmatch("[a-z]{3,}", word):
            best[word] = max(best.get(word, (0, "")), (int(count), SENSE_PARTS[sense[0]]))
    return [(word, best[word][1]) for word in sorted(best, key=lambda word: (-best[word][0], word))]


def definitions(root: Path, part: str) -> dict[str, str]:
    """Each word's first definition. An index line ends with the offsets of the word's meanings; field 2 counts them."""
    data, found = (root / f"data.{part}").read_bytes(), {}
    for fields in map(str.split, (root / f"index.{part}").read_text().splitlines()[29:]):  # the licence has 29 lines
        start = int(fields[-int(fields[2])])
        members, gloss = data[start : data.index(b"\n", start)].decode().split(" | ", 1)
        if re.search(rf" {fields[0]}[ (]", members):  # not a name: the index is in lower case, the data is not
            found[fields[0]] = " ".join(re.sub(r"\([^()]*\)", " ", gloss).split(";")[0].replace(" ,", ",").split())
    return found


def rows(root: Path) -> list[dict[str, str]]:
    """As many rows of each part of speech as PARTS says, with distinct prompts and completions."""
    known, chosen, counts = {part: definitions(root, part) for part in PARTS}, {}, dict.fromkeys(PARTS, 0)
    for word, part in words_by_use(root):
        gloss = known[part].get(word, word)  # the counts know a few words that the dictionary does not
        fit = 3 <= len(gloss.split()) <= 25 and word not in gloss and not UNFIT.search(gloss)
        if fit and gloss not in chosen and counts[part] < PARTS[part][1]:
            chosen[gloss], counts[part] = f'Define the {PARTS[part][0]} "{word}".', counts[part] + 1
    pairs = sorted(chosen.items(), key=lambda pair: hashlib.sha256(pair[1].encode()).digest())
    return [{"prompt": prompt, "completion": gloss} for gloss, prompt in pairs]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["dpkg-deb", "-x", sys.argv[1], scratch], check=True)
        lines = [json.dumps(row) + "\n" for row in rows(Path(scratch, "usr/share/wordnet"))]
        Path(sys.argv[2]).write_text("".join(lines))
