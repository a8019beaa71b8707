"""The embedded demo checkpoint: what unpacks, and the dialogues that it was trained on."""

from __future__ import annotations

import hashlib
import json
import lzma
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from gptoss_mlx import demo
from gptoss_mlx.config import ModelConfig
from gptoss_mlx.convert import convert, mxfp4
from gptoss_mlx.convert.names import source_tensors
from gptoss_mlx.demo import dialogues, evaluate, network, pack, scenes, spelling, train
from gptoss_mlx.harmony import parse
from gptoss_mlx.model import load_model
from gptoss_mlx.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow

FOLDER = Path(demo.__file__).parent
UNPACKED_SHA256 = "d40d08999a758a5fe7687a7766222e1307b910ebf139933f8dee93b191154b38"
tokenizer = load_tokenizer()


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked checkpoint."""
    return demo.unpack(tmp_path_factory.mktemp("demo") / "new" / "folder")


def read_header(folder: Path) -> dict[str, Any]:
    """The JSON header of model.safetensors, tensors only."""
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    return header


def test_unpacked_bytes_are_the_recorded_ones(unpacked: Path) -> None:
    """Unpacking gives the checkpoint that README.md's figures were measured on."""
    with (unpacked / "model.safetensors").open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == UNPACKED_SHA256


def test_unpacked_tensors_have_openais_names_shapes_and_dtypes(unpacked: Path) -> None:
    """The header holds the tensors of an original checkpoint and nothing else."""
    config = ModelConfig.from_dict(json.loads((unpacked / demo.CONFIG).read_text()))
    found = {name: (t["dtype"], tuple(t["shape"])) for name, t in read_header(unpacked).items()}
    expected = source_tensors(config, "openai").items()
    assert found == {name: (t.spec.dtype, t.spec.shape) for name, t in expected}
    assert len(found) == 15 * config.num_hidden_layers + 3


def test_unpacked_file_ends_with_its_last_tensor(unpacked: Path) -> None:
    """Nothing is missing at the end of the file, and nothing is left over."""
    with (unpacked / "model.safetensors").open("rb") as file:
        begin = 8 + struct.unpack("<Q", file.read(8))[0]
    end = max(tensor["data_offsets"][1] for tensor in read_header(unpacked).values())
    assert (unpacked / "model.safetensors").stat().st_size == begin + end


def test_proportions_are_those_of_the_big_models() -> None:
    """The demo exercises what gpt-oss has: 8 queries per KV head, top 4, window 128, YaRN by 32."""
    config = ModelConfig.from_dict(json.loads((FOLDER / demo.CONFIG).read_text()))
    assert config.num_attention_heads // config.num_key_value_heads == 8
    assert (config.experts_per_token, config.sliding_window, config.head_dim) == (4, 128, 64)
    assert (config.vocab_size, config.rope_scaling_factor) == (201_088, 32)


def test_asset_is_small() -> None:
    """The package grows by less than three megabytes."""
    assert (FOLDER / demo.PACKED).stat().st_size < 3e6


def test_importing_the_demo_imports_nothing_heavy() -> None:
    """`gptoss_mlx.demo` can be asked for its description without mlx or numpy."""
    code = "import sys, gptoss_mlx.demo; print({'mlx', 'numpy', 'openai_harmony'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_fake_quantization_is_the_real_one() -> None:
    """What training computes with is exactly what is packed."""
    weights = np.random.default_rng(0).standard_normal((2, 4, 64)).astype(np.float32)
    fake = np.asarray(network.fake_mxfp4(mx.array(weights)), dtype=np.float32)
    packed = mxfp4.decode(*mxfp4.encode(weights))
    np.testing.assert_allclose(packed, fake, rtol=1e-6, atol=1e-6)


def test_compressing_is_deterministic(tmp_path: Path) -> None:
    """The same checkpoint gives the same asset, and unpacks to itself."""
    (tmp_path / "model.safetensors").write_bytes(bytes(1000) + b"weights")
    first = pack.compress(tmp_path).read_bytes()
    assert pack.compress(tmp_path).read_bytes() == first
    assert lzma.decompress(first) == bytes(1000) + b"weights"


@pytest.mark.parametrize("skill", dialogues.SKILLS)
def test_splits_are_disjoint(skill: str) -> None:
    """No question of the dev or test split is ever asked in another one."""
    keys = {
        split: {d.turn.key for d in dialogues.held_out(split, skill, 8, seed=0)}
        for split in dialogues.SPLITS
    }
    assert keys["train"]
    assert keys["test"]
    assert not keys["train"] & keys["dev"]
    assert not keys["train"] & keys["test"]
    assert not keys["dev"] & keys["test"]


def test_spelling_does_not_change_the_split() -> None:
    """Case, spaces and punctuation cannot carry a question from one split to another."""
    assert dialogues.split_of("What's 2 + 2?") == dialogues.split_of("whats 2+2")


def test_training_groups_stay_in_the_training_split() -> None:
    """Neither the questions nor the earlier turns of training dialogues are held out."""
    r = Random(0)
    for dialogue in [dialogue for _ in range(10) for dialogue in dialogues.draw_group(r, 4)]:
        keys = [dialogue.turn.key, *(turn.key for turn in dialogue.earlier)]
        assert {dialogues.split_of(key) for key in keys} == {"train"}


@pytest.mark.parametrize("skill", dialogues.SKILLS)
def test_expected_completions_are_valid_harmony(skill: str) -> None:
    """The parser finds exactly the expected messages in what the model is trained to say."""
    for dialogue in dialogues.held_out("train", skill, 4, seed=1):
        ids = spelling.expected_ids(tokenizer, dialogue)
        found = [(m.channel, m.recipient, m.content) for m in parse(ids, tokenizer)]
        wanted = [(m.channel, m.recipient, spelling.text_of(m)) for m in dialogue.turn.expected]
        assert found == wanted
        right = evaluate.score(ids, evaluate.expected_essence(dialogue), tokenizer)
        assert right == evaluate.Score(True, True, True)


def test_prompt_is_what_openai_harmony_renders() -> None:
    """Scene and rest together begin with the system message and end where the model goes on."""
    dialogue = dialogues.held_out("train", "result", 1, seed=0)[0]
    scene, rest = spelling.prompt_ids(tokenizer, dialogue)
    assert tokenizer.decode(scene).startswith("<|start|>system<|message|>You are")
    assert tokenizer.decode(rest).startswith("<|start|>user<|message|>")
    assert tokenizer.decode(rest).endswith("<|start|>assistant")


def test_calls_are_shown_in_both_spellings() -> None:
    """Calls in the context have their recipient in the role or, as sampled, in the channel."""
    drawn = dialogues.held_out("train", "result", 12, seed=0)
    texts = [tokenizer.decode(spelling.prompt_ids(tokenizer, d)[1]) for d in drawn]
    assert any("<|start|>assistant to=functions." in text for text in texts)
    assert any("<|channel|>commentary to=functions." in text for text in texts)


def test_calls_carry_valid_json() -> None:
    """An expected call names the tool that is offered and gives it the city."""
    for dialogue in dialogues.held_out("train", "call", 8, seed=0):
        tool, call = dialogue.scene.weather, dialogue.turn.expected[-1]
        assert tool is not None
        assert call.recipient == f"functions.{tool.name}"
        assert list(json.loads(spelling.text_of(call))) == [tool.argument]


def test_scenes_vary() -> None:
    """Dates, efforts, instructions and tools all occur, and all can be absent."""
    drawn = [scenes.draw_scene(Random(seed)) for seed in range(60)]
    assert {scene.effort for scene in drawn} == {"low", "medium", "high"}
    for values in zip(*((s.date, s.instructions, s.weather) for s in drawn), strict=True):
        assert {value is None for value in values} == {True, False}


@pytest.mark.parametrize("damage", ["no end", "no final"])
def test_scoring_sees_what_is_wrong(damage: str) -> None:
    """A completion that was cut short is not valid harmony."""
    dialogue = dialogues.held_out("train", "add", 1, seed=0)[0]
    ids = spelling.expected_ids(tokenizer, dialogue)
    cut = ids[:-1] if damage == "no end" else ids[:5]
    assert not evaluate.score(cut, evaluate.expected_essence(dialogue), tokenizer).valid


def test_training_network_is_the_runtime_model(tmp_path: Path) -> None:
    """A scene and its branches give, when trained on, the logits that the packed model gives."""
    config = replace(train.demo_config(), vocab_size=300)
    vocabulary = list(range(0, 300, 3))
    weights = network.initial_parameters(config, tokenizer, vocabulary, seed=0)
    pack.write_original(tmp_path / "a", pack.to_original(weights, config, vocabulary), config)
    scene, prompts = [3, 6, 5, 9], [[30, 33], [36, 39, 42]]
    groups = [[train.Sample(scene, prompt, [60], known=True) for prompt in prompts]]
    batch = train.make_batch(groups, {token: i for i, token in enumerate(vocabulary)})
    hidden = network.forward(weights, config, batch.tokens).reshape(-1, config.hidden_size)
    logits = (hidden @ weights["unembedding.weight"].T)[batch.places]
    trained = np.asarray(logits, dtype=np.float32)
    convert(tmp_path / "a", tmp_path / "b", dense="bf16")
    model = load_model(tmp_path / "b", mx.float32)
    for row, prompt in enumerate(prompts):
        last = model(mx.array([scene + prompt]))[0, -1]
        packed = np.asarray(last, dtype=np.float32)[vocabulary]
        np.testing.assert_allclose(packed, trained[row], atol=0.03 * float(np.abs(packed).max()))


def test_held_out_questions_are_answered() -> None:
    """Real generation on two held-out questions of each skill: valid harmony, nearly all right."""
    engine = evaluate.load_engine()
    scores: list[evaluate.Score] = []
    for skill in dialogues.SKILLS:
        for dialogue in dialogues.held_out("dev", skill, 2, seed=0):
            scene, rest = spelling.prompt_ids(tokenizer, dialogue)
            ids = evaluate.complete(engine, scene + rest)
            expected = evaluate.expected_essence(dialogue)
            scores.append(evaluate.score(ids, expected, tokenizer))
    assert all(score.valid for score in scores)
    assert sum(score.answer for score in scores) >= 0.9 * len(scores)
