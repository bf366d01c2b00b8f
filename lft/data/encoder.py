"""Texts to token ids by the Rust tokenizer directly, where it gives what the tokenizer's ordinary call gives.

The gigatoken package, where it is installed, is used in its place as long as it gives the same on samples of the data: on short
texts it takes a tenth of the time. It cannot load every tokenizer.
"""

import importlib.util
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBES = ("user\nHi!", "Hello, you.", " and", "\n- it's 12", "caf\u00e9 \u4f60\u597d", "  two  spaces ", "a\tb\r\n\nc")


SAMPLE = 64
"""Texts of each call that are encoded by both, where gigatoken is used."""


class Encoder:
    """Encodes texts as they would be within a longer text: nothing is added in front or behind.

    `cuts` says whether a text may be cut and its parts be encoded apart. It may not where the tokenizer puts a space in front
    of whatever it is given, as Llama 2's does. `borders` matches special tokens at which a cut never changes the tokens;
    None if there is none.
    """

    def __init__(
        self, tokenizer: "PreTrainedTokenizerBase", announce: Callable[[str], None] = lambda line: None
    ) -> None:
        self._tokenizer, self._announce = tokenizer, announce
        self._rust = self._direct()
        self.cuts = self._rust is None or all(self._joins(probe) for probe in _PROBES)
        self._fast = self._gigatoken() if self._rust is not None and self.cuts else None
        self.borders = self._borders() if self._rust is not None and self.cuts else None
        self.special_ids = np.array(
            sorted(
                {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
                | {*tokenizer.all_special_ids}
            ),
            dtype=np.int32,
        )

    def describe(self) -> str:
        """For people: how rows become tokens."""
        if not self.cuts:
            return "prompt and answer are tokenized as one text, because this tokenizer puts a space in front of every text"
        how = "; without Rust, so slowly" if self._rust is None else ", by gigatoken" if self._fast else ""
        return f"prompt and answer are tokenized apart{how}"

    def ids(self, texts: list[str]) -> list[list[int]]:
        """The tokens of each text."""
        if self._rust is None:
            return self._ordinary(texts) if texts else []
        if self._fast is not None:
            sample = texts[:: max(len(texts) // SAMPLE, 1)]
            if self._fast.encode_batch_list(sample) == self._by_rust(sample):
                found: list[list[int]] = self._fast.encode_batch_list(texts)
                return found
            self._fast = None
            self._announce("data       gigatoken gives other tokens for these texts and is not used")
        return self._by_rust(texts)

    def _ordinary(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(texts, **_AS_IT_IS).input_ids
        return ids

    def _by_rust(self, texts: list[str]) -> list[list[int]]:
        assert self._rust is not None
        return [encoding.ids for encoding in self._rust.encode_batch_fast(texts, add_special_tokens=False)]

    def ids_and_starts(self, texts: list[str]) -> list[tuple[list[int], npt.NDArray[np.int64]]]:
        """The tokens of each text, and the character at which each token begins. Only where not `cuts`."""
        assert self._rust is not None
        encodings = self._rust.encode_batch(texts, add_special_tokens=False)
        return [(each.ids, np.array(each.offsets, np.int64).reshape(-1, 2)[:, 0]) for each in encodings]

    def _direct(self) -> Any:
        """The tokenizers.Tokenizer, or None where there is none or it is not all there is to the ordinary call."""
        rust = getattr(self._tokenizer, "backend_tokenizer", None) if self._tokenizer.is_fast else None
        if rust is None:
            return None
        probes = [*_PROBES, "".join([*self._tokenizer.all_special_tokens, *_PROBES])]
        expected = self._ordinary(probes)  # also turns off truncation and padding
        found = rust.encode_batch_fast(probes, add_special_tokens=False)
        return rust if [each.ids for each in found] == expected else None

    def _gigatoken(self) -> Any:
        """The same tokenizer in gigatoken, or None without it."""
        if importlib.util.find_spec("gigatoken") is None:
            return None
        from gigatoken import Tokenizer

        try:
            return Tokenizer.from_json(self._rust.to_str())
        except Exception as error:  # each kind of tokenizer that it does not know fails in its own way
            reason = str(error).strip().split("\n")[0]
            self._announce(f"data       gigatoken cannot load this tokenizer and is not used: {reason}")
            return None

    def _joins(self, probe: str) -> bool:
        """Whether a text is the same text behind another one."""
        before = _PROBES[0]
        one, other, both = self._ordinary([before, probe, before + probe])
        return self._text([*one, *other]) == self._text(both)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, clean_up_tokenization_spaces=False))

    def _borders(self) -> re.Pattern[str] | None:
        """Special tokens that take nothing from their neighbours and that no other added token reaches into."""
        added = self._tokenizer.added_tokens_decoder.values()
        names = {str(token) for token in added}
        hard = [
            str(token)
            for token in added
            if token.special
            and not (token.lstrip or token.rstrip or token.single_word or token.normalized)
            and not any(_reaches_into(other, str(token)) for other in names - {str(token)})
        ]
        hard.sort(key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, hard)) + ")") if hard else None


_AS_IT_IS: dict[str, Any] = {"add_special_tokens": False, "return_attention_mask": False}


def _reaches_into(other: str, token: str) -> bool:
    """Whether `other` could be found across the beginning of `token`."""
    return token in other or any(other.endswith(token[:length]) for length in range(1, len(token)))
