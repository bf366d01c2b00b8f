"""A row shown in pieces says exactly which text is trained."""

import numpy as np

from lft.data.sample import pieces, spread
from tests.conftest import TinyModels
from tests.data.some_rows import SomeRows, row


def test_pieces_are_cut_where_training_begins_and_ends() -> None:
    labels = [-100, 1, 2, -100, -100, 5]
    found = pieces({"input_ids": np.arange(6), "labels": np.array(labels)}, lambda ids: "abcdef"[: len(ids)])
    assert found == [("a", False), ("bc", True), ("de", False), ("f", True)]


def test_a_piece_keeps_the_space_that_a_tokenizer_drops_at_the_beginning_of_a_text() -> None:
    def decode(ids: list[int]) -> str:
        return "".join([" one", " two", " three"][number] for number in ids).lstrip()

    found = pieces({"input_ids": np.arange(3), "labels": np.array([-100, 1, 2])}, decode)
    assert found == [("one", False), (" two three", True)]


def test_no_tokens_are_no_pieces() -> None:
    assert pieces(SomeRows([row(0, asked=0, answered=0)])[0], lambda ids: "x" * len(ids)) == []


def test_the_pieces_of_a_chat_join_to_its_text_with_special_tokens(tiny_models: TinyModels) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_models.llama)
    before, answer = "<|im_start|>user\nWhat is a Käse?<|im_end|>\n<|im_start|>assistant\n", "A cheese.<|im_end|>"
    prompt, trained = (tokenizer(text, add_special_tokens=False).input_ids for text in (before, answer))
    labels = np.array([-100] * len(prompt) + trained)
    found = pieces({"input_ids": np.array(prompt + trained), "labels": labels}, lambda ids: str(tokenizer.decode(ids)))
    assert found == [(before, False), (answer, True)]


def test_rows_to_show_are_spread_over_all_of_them() -> None:
    assert spread(1000, 4) == [0, 250, 500, 750]
    assert spread(3, 9) == [0, 1, 2]
    assert spread(0, 2) == []
