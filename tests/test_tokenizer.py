"""Token ids from every file that can carry Gemma's tokenizer, against recorded ids and a BPE written out in Python."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import sdltx
from sdltx import _core

pytestmark = pytest.mark.sanitize

DATA = Path(__file__).parent / "data"
TINY_JSON = json.loads((DATA / "tiny-a" / "gemma" / "tokenizer.json").read_text(encoding="utf-8"))
VOCAB: dict[str, int] = TINY_JSON["model"]["vocab"]
LITERALS = {token["content"]: token["id"] for token in TINY_JSON["added_tokens"]}
SPACE = "\u2581"  # stands for a space inside tokens
BOS = 2


def merge_ranks() -> dict[tuple[str, str], int]:
    return {tuple(pair): rank for rank, pair in enumerate(TINY_JSON["model"]["merges"])}


def reference_ids(text: str, ranks: dict[tuple[str, str], int]) -> list[int]:
    """Byte-pair encoding as the `tokenizer.json` defines it: the pair of lowest rank first, the leftmost of equals."""
    by_length = sorted(LITERALS, key=len, reverse=True)
    ids = [BOS]
    for part in re.split("(" + "|".join(map(re.escape, by_length)) + ")", text):
        if part in LITERALS:
            ids.append(LITERALS[part])
            continue
        symbols = list(part.replace(" ", SPACE))
        while True:
            pairs = [(ranks[pair], i) for i, pair in enumerate(itertools.pairwise(symbols)) if pair in ranks]
            if not pairs:
                break
            _, i = min(pairs)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        for symbol in symbols:
            byte_pieces = [f"<0x{byte:02X}>" for byte in symbol.encode()]
            ids += [VOCAB[symbol]] if symbol in VOCAB else [VOCAB[piece] for piece in byte_pieces]
    return ids


def gguf_arrays() -> dict:
    """The tiny vocabulary as llama.cpp's converter would store it."""
    tokens = sorted(VOCAB, key=VOCAB.__getitem__)
    rank_of: dict[str, int] = {}
    for rank, (left, right) in enumerate(TINY_JSON["model"]["merges"]):
        rank_of.setdefault(left + right, rank)
    special = {token["content"] for token in TINY_JSON["added_tokens"] if token["special"]}
    types = []
    for token in tokens:
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            types.append(gguf.TokenType.BYTE)
        elif token in special:
            types.append(gguf.TokenType.CONTROL)
        else:
            types.append(gguf.TokenType.USER_DEFINED if token in LITERALS else gguf.TokenType.NORMAL)
    written = [
        t.replace(SPACE, " ") if kind == gguf.TokenType.USER_DEFINED else t
        for t, kind in zip(tokens, types, strict=True)
    ]
    return {
        "tokens": written,
        "scores": [-float(rank_of.get(token, 0)) for token in tokens],
        "types": [int(kind) for kind in types],
        "bos": VOCAB["<bos>"],
        "unk": VOCAB["<unk>"],
        "model": "llama",
    }


def write_gguf(folder: Path, arrays: dict) -> str:
    path = folder / "gemma.gguf"
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_tokenizer_model(arrays["model"])
    writer.add_token_list(arrays["tokens"])
    if arrays["scores"] is not None:
        writer.add_token_scores(arrays["scores"])
    writer.add_token_types(arrays["types"])
    writer.add_bos_token_id(arrays["bos"])
    writer.add_unk_token_id(arrays["unk"])
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def model_folder(folder: Path, **files: bytes) -> str:
    """A folder with a model file beside the given `tokenizer_<extension>` files."""
    folder.mkdir(exist_ok=True)
    save_file({"language_model.model.norm.weight": np.ones(4, np.float32)}, folder / "model.safetensors")
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return str(folder)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """The tiny tokenizer by source."""
    root = tmp_path_factory.mktemp("tokenizers")
    gemma = DATA / "tiny-a" / "gemma"
    paths = {
        "model": model_folder(root / "model", tokenizer_model=(gemma / "tokenizer.model").read_bytes()),
        "json": model_folder(root / "json", tokenizer_json=(gemma / "tokenizer.json").read_bytes()),
        "gguf": write_gguf(root, gguf_arrays()),
    }
    return {source: _core.Tokenizer([path]) for source, path in paths.items()}


SOURCES = ["model", "json", "gguf"]


@pytest.mark.parametrize("source", SOURCES)
def test_recorded_ids(tokenizers, source):
    with np.load(DATA / "tiny-a" / "goldens" / "tokens.npz") as golden:
        for i, prompt in enumerate(golden["prompts"]):
            expected = golden[f"ids_{i}"]
            ids = tokenizers[source].encode(str(prompt).strip())
            assert ids.dtype == np.int32
            assert np.array_equal(ids[:1024], expected), f"prompt {i}: {prompt!r}"


def test_pipeline_tokenizes_like_the_reference(tiny, golden):
    tokens = golden("tokens")
    for i, prompt in enumerate(tokens["prompts"]):
        assert np.array_equal(tiny.tokenize(str(prompt)), tokens[f"ids_{i}"]), f"prompt {i}: {prompt!r}"


def test_real_vocabulary(gemma270):
    tokenizer = _core.Tokenizer([str(gemma270)])
    assert tokenizer.size == 262144
    for case in json.loads((DATA / "gemma3-270m" / "tokens.json").read_text(encoding="utf-8")):
        ids = tokenizer.encode(case["text"]).tolist()
        assert ids == [BOS, *case["ids"]], case["name"]


# At most six spaces in a row: for longer runs the tiny tokenizer.model and tokenizer.json define different tokens.
pieces = st.one_of(
    st.sampled_from([token.replace(SPACE, " ") for token in VOCAB if token not in LITERALS]),
    st.sampled_from(list(LITERALS)),
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from([" ", "\n", "\t", "<", "0x41>", SPACE, "e\u0301", "\0"]),
)
texts = st.lists(pieces, max_size=30).map("".join)


@pytest.mark.parametrize("source", SOURCES)
def test_any_text_gives_the_ids_of_plain_bpe(tokenizers, source):
    ranks = merge_ranks()

    @settings(max_examples=300)
    @given(texts)
    def check(text):
        text = re.sub(f"[ {SPACE}]{{7,}}", " ", text)
        assert tokenizers[source].encode(text).tolist() == reference_ids(text, ranks)

    check()


@pytest.mark.parametrize("count", [7, 8, 13, 40])
def test_long_runs_of_spaces_follow_the_merges(tokenizers, count):
    text = "a" + " " * count + "b"
    assert tokenizers["json"].encode(text).tolist() == reference_ids(text, merge_ranks())


@pytest.mark.parametrize("source", SOURCES)
def test_one_bos_is_added_and_literal_ones_stay(tokenizers, source):
    encode = tokenizers[source].encode
    assert encode("").tolist() == [BOS]
    assert encode("<bos>").tolist() == [BOS, BOS]
    assert encode(" ").tolist() == [BOS, VOCAB[SPACE]]
    assert encode("\0").tolist() == [BOS, VOCAB["<0x00>"]]
    assert encode("<0x41>").tolist() != [BOS, VOCAB["<0x41>"]]
    assert tokenizers[source].size == len(VOCAB)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"fox \xff", "not valid UTF-8 at byte 4"),
        (b"\xed\xa0\x80", "not valid UTF-8 at byte 0"),
        (b"\xc0\x80", "not valid UTF-8 at byte 0"),
        (b"a\xf0\x9f\x8e", "not valid UTF-8 at byte 1"),
        (b"a" * ((1 << 20) + 1), "1048577 bytes"),
    ],
)
def test_text_that_is_refused(tokenizers, source, text, problem):
    with pytest.raises(sdltx.InvalidRequestError, match=problem):
        tokenizers[source].encode(text)


def test_added_tokens_beyond_the_vocabulary(tmp_path):
    data = json.loads(json.dumps(TINY_JSON))
    data["added_tokens"].append({**data["added_tokens"][-1], "id": 700, "content": "<image_soft_token>"})
    tokenizer = _core.Tokenizer([model_folder(tmp_path, tokenizer_json=json.dumps(data).encode())])
    assert tokenizer.encode("<image_soft_token>").tolist() == [BOS, 700]
    assert tokenizer.size == 701


def test_merges_in_the_older_form(tmp_path, tokenizers):
    data = json.loads(json.dumps(TINY_JSON))
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    tokenizer = _core.Tokenizer([model_folder(tmp_path, tokenizer_json=json.dumps(data).encode())])
    text = "A red fox walks slowly across a snowy forest.\n\n  Thunder"
    assert np.array_equal(tokenizer.encode(text), tokenizers["json"].encode(text))


def change_vocab(data):
    data["model"]["vocab"]["ab-twice"] = 5


def change_merge(data):
    data["model"]["merges"][0] = ["no", "such"]


JSON_PROBLEMS = {
    "unigram": (lambda d: d["model"].update(type="Unigram"), sdltx.ModelMismatchError, "'type' = \"Unigram\""),
    "no fallback": (lambda d: d["model"].update(byte_fallback=False), sdltx.ModelMismatchError, "'byte_fallback'"),
    "normalizer": (lambda d: d.update(normalizer={"type": "NFKC"}), sdltx.ModelMismatchError, "'normalizer'"),
    "pre-tokenizer": (lambda d: d.update(pre_tokenizer={"type": "Whitespace"}), sdltx.ModelMismatchError, "'pre_tok"),
    "strip": (lambda d: d["added_tokens"][0].update(lstrip=True), sdltx.ModelMismatchError, "'lstrip'"),
    "bytes": (lambda d: d["model"]["vocab"].pop("<0x41>"), sdltx.ModelFileError, "not one of 0 to 638"),
    "twice": (change_vocab, sdltx.ModelFileError, "two tokens with the id 5"),
    "merge": (change_merge, sdltx.ModelFileError, "merge 0, whose result"),
    "id type": (lambda d: d["model"]["vocab"].update(a="x"), sdltx.ModelFileError, "not one of 0 to 639"),
    "added id": (lambda d: d["added_tokens"][0].update(id=9), sdltx.ModelFileError, "two ids"),
    "no model": (lambda d: d.pop("model"), sdltx.ModelFileError, "no 'model'"),
    "model is text": (lambda d: d.update(model="BPE"), sdltx.ModelFileError, "no|not"),
    "no <unk>": (lambda d: d["model"].update(unk_token="none"), sdltx.ModelFileError, "0 <unk> pieces"),
    "null <unk>": (lambda d: d["model"].update(unk_token=None), sdltx.ModelFileError, "not a valid tokenizer.json"),
}


@pytest.mark.parametrize("name", JSON_PROBLEMS)
def test_tokenizer_json_that_is_refused(tmp_path, name):
    change, error, problem = JSON_PROBLEMS[name]
    data = json.loads(json.dumps(TINY_JSON))
    change(data)
    with pytest.raises(error, match=problem) as raised:
        _core.Tokenizer([model_folder(tmp_path, tokenizer_json=json.dumps(data).encode())])
    assert "tokenizer.json]" in str(raised.value)
    assert "\n" not in str(raised.value)


GGUF_PROBLEMS = {
    "scores": (lambda a: a["scores"].pop(), sdltx.ModelFileError, "639 scores"),
    "types": (lambda a: a["types"].pop(), sdltx.ModelFileError, "639 types"),
    "type": (lambda a: a["types"].__setitem__(600, 9), sdltx.ModelFileError, "token 600 of an unknown type"),
    "bos": (lambda a: a.update(bos=640), sdltx.ModelFileError, "<bos> or <unk> id"),
    "duplicate": (lambda a: a["tokens"].__setitem__(600, a["tokens"][601]), sdltx.ModelFileError, "600 and 601 alike"),
    "empty": (lambda a: a["tokens"].__setitem__(600, ""), sdltx.ModelFileError, "empty piece 600"),
    "UTF-8": (lambda a: a["tokens"].__setitem__(600, b"\xff"), sdltx.ModelFileError, "piece 600, which is not valid"),
    "score": (lambda a: a["scores"].__setitem__(600, float("nan")), sdltx.ModelFileError, "not finite"),
    "byte": (lambda a: a["types"].__setitem__(VOCAB["<0x41>"], 1), sdltx.ModelMismatchError, "256 byte pieces"),
    "kind": (lambda a: a.update(model="gpt2"), sdltx.ModelMismatchError, "'gpt2'"),
}


@pytest.mark.parametrize("name", GGUF_PROBLEMS)
def test_gguf_arrays_that_are_refused(tmp_path, name):
    change, error, problem = GGUF_PROBLEMS[name]
    arrays = gguf_arrays()
    change(arrays)
    with pytest.raises(error, match=problem):
        _core.Tokenizer([write_gguf(tmp_path, arrays)])


def test_damaged_files_give_one_typed_error_and_no_output(tmp_path, capfd):
    rng = np.random.default_rng(0)
    gemma = DATA / "tiny-a" / "gemma"
    refused = 0
    for name in ("tokenizer.model", "tokenizer.json"):
        whole = (gemma / name).read_bytes()
        cases = [b"version https://git-lfs", b"[" * 100_000, whole[: len(whole) // 2]]
        for _ in range(200):
            damaged = bytearray(whole)
            for at in rng.integers(0, len(whole), 3):
                damaged[at] = rng.integers(0, 256)
            cases.append(bytes(damaged))
        for case in cases:
            folder = model_folder(tmp_path / name, **{name.replace(".", "_"): case})
            try:
                _core.Tokenizer([folder]).encode("a fox <b>\n\n  and \u65e5 \U0001f3ac")
            except (sdltx.ModelFileError, sdltx.ModelMismatchError) as error:
                assert "\n" not in str(error)
                refused += 1
    assert refused > 200
    assert capfd.readouterr() == ("", "")


def test_missing_tokenizer_says_what_was_looked_for(tmp_path):
    with pytest.raises(sdltx.ModelFileError, match=r"tokenizer\.model or tokenizer\.json") as raised:
        _core.Tokenizer([model_folder(tmp_path)])
    assert str(tmp_path) in str(raised.value)


def test_gguf_without_scores_ranks_by_number(tmp_path):
    """As some converters leave it; in Gemma's vocabulary a later piece is a less likely one."""
    arrays = gguf_arrays()
    normal = [i for i, kind in enumerate(arrays["types"]) if kind == gguf.TokenType.NORMAL]
    likeliest = sorted(normal, key=lambda i: -arrays["scores"][i])
    tokens = {i: arrays["tokens"][j] for i, j in zip(normal, likeliest, strict=True)}
    arrays["tokens"] = [tokens.get(i, token) for i, token in enumerate(arrays["tokens"])]
    arrays["scores"] = [-2.0 * normal.index(i) if i in tokens else 0.0 for i in range(len(arrays["tokens"]))]
    whole = _core.Tokenizer([write_gguf(tmp_path, arrays)])
    (tmp_path / "without").mkdir()
    without = _core.Tokenizer([write_gguf(tmp_path / "without", {**arrays, "scores": None})])
    for text in ("a red ball bounces", "ein grüner Würfel", "  two  spaces", "x" * 50):
        assert without.encode(text).tolist() == whole.encode(text).tolist()


def test_gguf_comes_before_files_in_its_folder(tmp_path):
    arrays = gguf_arrays()
    path = write_gguf(tmp_path, arrays)
    (tmp_path / "tokenizer.model").write_bytes(b"not looked at")
    assert _core.Tokenizer([path]).size == len(VOCAB)
