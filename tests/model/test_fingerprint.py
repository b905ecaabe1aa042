import json

import pytest
from safetensors.torch import load_file, save_file

from medqa import provenance
from medqa.errors import MissingInputError
from medqa.model.fingerprint import weights_fingerprint
from medqa.model.importer import import_model

from .original_chatglm import BASE, random_weights, write_checkpoint


def fingerprint(folder, tokenizer, *, dtype="keep", **layout):
    write_checkpoint(folder / "source", tokenizer, **layout)
    import_model(folder / "source", folder / "target", dtype=dtype, origin="test")
    (found,) = provenance.model_digest(folder / "target").values()
    assert found == weights_fingerprint(folder / "target")
    return found


def test_it_knows_the_weights_and_not_the_files(tmp_path, small_tokenizer):
    one = fingerprint(tmp_path / "one", small_tokenizer)
    three = fingerprint(tmp_path / "three", small_tokenizer, kind="bin", shards=3)
    assert one == three
    assert one.startswith("sha256:")
    assert len(one) == 7 + 64


def test_one_changed_value_or_another_dtype_changes_it(tmp_path, small_tokenizer):
    weights = random_weights(BASE)
    weights["transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"][3, 4] += 1e-3
    found = {
        fingerprint(tmp_path / "base", small_tokenizer),
        fingerprint(tmp_path / "tuned", small_tokenizer, weights=weights),
        fingerprint(tmp_path / "half", small_tokenizer, dtype="bfloat16"),
    }
    assert len(found) == 3


def test_a_folder_without_weights(tmp_path):
    with pytest.raises(MissingInputError, match=r"no model\.safetensors"):
        weights_fingerprint(tmp_path)


def test_the_order_of_an_index_does_not_matter(tmp_path, small_tokenizer):
    one = fingerprint(tmp_path / "one", small_tokenizer)
    weights = load_file(tmp_path / "one" / "target" / "model.safetensors")
    names = sorted(weights, reverse=True)
    for file, part in (("a", names[::2]), ("b", names[1::2])):
        save_file({name: weights[name] for name in part}, tmp_path / f"{file}.safetensors")
    where = {n: f"{'ab'[i % 2]}.safetensors" for i, n in enumerate(names)}
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    assert weights_fingerprint(tmp_path) == one
