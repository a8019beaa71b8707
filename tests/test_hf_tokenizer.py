"""The tokenizer files of a conversion: what stock programs read cuts text as harmony does."""

from __future__ import annotations

import json
import random
from pathlib import Path
from unittest.mock import Mock

import pytest
from checkpoints import TINY
from tokenizers import Tokenizer as HFTokenizer

from gptoss_mlx import tokenizer as ours
from gptoss_mlx.convert import convert
from gptoss_mlx.convert.hf_tokenizer import add_tokenizer, find_tokenizer
from gptoss_mlx.convert.synthetic import write_random_checkpoint
from gptoss_mlx.errors import CorruptFileError
from gptoss_mlx.vocabulary import is_genuine, vocabulary_from_hf

pytestmark = pytest.mark.slow

TEXTS = [
    "",
    " ",
    "\n\n\n",
    "Hello, world! It's 12345 o'clock, we'LL see; DON'T shout.",
    "    def f(x):\r\n\treturn {'a': [x ** 2, -0.5e-3]}  # done\n\n\n",
    'for(;;){printf("%d\\n",i++);}/* ... */ a//b /path/to/file/\n/',
    "Ärger, naïve café, ÉCOLE; straße, ǅ ŉ ﬁ",
    "日本語のテキスト。中文，标点！한국어 띄어쓰기",
    "مرحبا بالعالم שלום ไทย हिन्दी தமிழ்",
    "👩‍👩‍👧‍👦 🇺🇳 e\u0301 \u200b\u00a0\u3000 ½ ⅷ ٣٤٥ 𝔘𝔫𝔦",
    "\x00\x01\x7f\x80\x9f\ufeff\ufffd\U0010ffff",
    "<|not_special|> <| start |> |><|",
    "a" * 300 + "1" * 100 + "!" * 100 + " " * 100 + "x",
]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the tokenizer was written from the vocabulary."""
    folder = tmp_path_factory.mktemp("tokenizer")
    (folder / "out").mkdir()
    add_tokenizer(None, folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def theirs(written: Path) -> HFTokenizer:
    """The written tokenizer as stock programs load it."""
    return HFTokenizer.from_file(str(written / "tokenizer.json"))


def _random_texts(count: int) -> list[str]:
    rng = random.Random(20)
    letters = "aAbBéÉßñ  \t\n\r'’.,;:!?/\\|<>()[]{}0123456789_-+=*&^%$#@~`"
    ranges = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x530), (0x5D0, 0x780), (0x900, 0xE80)]
    ranges += [(0x3000, 0x3100), (0x4E00, 0x5000), (0xAC00, 0xAD00), (0x1F300, 0x1F700)]
    texts: list[str] = []
    for _ in range(count):
        pool = rng.choice(ranges)
        texts.append(
            "".join(
                rng.choice(letters) if rng.random() < 0.5 else chr(rng.randrange(*pool))
                for _ in range(rng.randrange(1, 60))
            )
        )
    return texts


def test_text_is_cut_as_harmony_cuts_it(theirs: HFTokenizer) -> None:
    """Prose, code, many scripts and thousands of random strings give the same ids, and back."""
    harmony = ours.load_tokenizer()
    source = Path(__file__).read_text(encoding="utf-8").replace("<|", "<")
    texts = [*TEXTS, source, *_random_texts(4000)]
    for text, encoding in zip(texts, theirs.encode_batch(texts), strict=True):
        assert encoding.ids == harmony.encode(text), repr(text)
        assert theirs.decode(encoding.ids, skip_special_tokens=False) == text


def test_special_tokens_have_their_ids(theirs: HFTokenizer) -> None:
    """Each marker is one token with harmony's id, and all ids up to the last are taken."""
    harmony = ours.load_tokenizer()
    for i in (ours.START, ours.END, ours.MESSAGE, ours.CHANNEL, ours.CONSTRAIN, *ours.STOP_TOKENS):
        marker = harmony.decode([i])
        assert theirs.token_to_id(marker) == i
        assert theirs.encode(f"a{marker}b").ids == harmony.encode_with_special(f"a{marker}b")
    assert theirs.get_vocab_size() == max(theirs.get_vocab().values()) + 1 == 200_019


def test_the_vocabulary_can_be_rebuilt_from_it(written: Path) -> None:
    """What was written gives back the published vocabulary, byte for byte."""
    assert is_genuine(vocabulary_from_hf(written))


def test_settings_name_the_end_token(written: Path) -> None:
    """Stock programs stop where gpt-oss stops."""
    settings = json.loads((written / "tokenizer_config.json").read_text())
    assert (settings["eos_token"], settings["pad_token"]) == ("<|return|>", "<|endoftext|>")


def _published(folder: Path, written: Path) -> dict[str, bytes]:
    """Lay down a genuine tokenizer, as a repository has it, with files of its own beside it."""
    files = {
        "tokenizer.json": (written / "tokenizer.json").read_bytes(),
        "tokenizer_config.json": b'{"from": "the repository"}',
        "special_tokens_map.json": b"{}",
        "chat_template.jinja": b"{{ messages }}",
    }
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return files


@pytest.mark.parametrize("place", ["source", "one folder up"])
def test_published_files_are_copied(tmp_path: Path, written: Path, place: str) -> None:
    """A tokenizer in the source, or beside OpenAI's original/, is taken over as it is."""
    source, destination = tmp_path / "repository" / "original", tmp_path / "out"
    source.mkdir(parents=True)
    destination.mkdir()
    files = _published(source if place == "source" else source.parent, written)
    add_tokenizer(find_tokenizer(source), destination)
    assert {path.name: path.read_bytes() for path in destination.iterdir()} == files


def test_the_folder_above_is_found_from_inside(
    tmp_path: Path, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called as `convert . DST` from within original/, the folder above is still the one above."""
    source, destination = tmp_path / "repository" / "original", tmp_path / "out"
    source.mkdir(parents=True)
    destination.mkdir()
    files = _published(source.parent, written)
    monkeypatch.chdir(source)
    add_tokenizer(find_tokenizer(Path()), destination)
    assert {path.name: path.read_bytes() for path in destination.iterdir()} == files


@pytest.mark.parametrize("contents", [b"", b"[]", b"\xff", b'{"model": {"vocab": {"a": 0}}}'])
def test_a_foreign_tokenizer_is_refused(tmp_path: Path, contents: bytes) -> None:
    """A tokenizer.json in the source that is not gpt-oss's is an error with its path."""
    (tmp_path / "tokenizer.json").write_bytes(contents)
    with pytest.raises(CorruptFileError, match=rf"{tmp_path}/tokenizer\.json: not gpt-oss's"):
        find_tokenizer(tmp_path)


def test_a_foreign_tokenizer_stops_a_conversion_before_its_work(tmp_path: Path) -> None:
    """A tokenizer.json that will be refused is refused at once, not after gigabytes were copied."""
    write_random_checkpoint(tmp_path / "source", TINY)
    (tmp_path / "source" / "tokenizer.json").write_text("{}")
    on_progress = Mock()
    with pytest.raises(CorruptFileError, match=r"tokenizer\.json"):
        convert(tmp_path / "source", tmp_path / "out", on_progress=on_progress)
    on_progress.assert_not_called()


def test_a_foreign_tokenizer_one_folder_up_is_no_concern(tmp_path: Path) -> None:
    """A folder of models may hold anything: what lies there is used only if it is gpt-oss's."""
    (tmp_path / "models" / "gpt-oss-20b").mkdir(parents=True)
    (tmp_path / "models" / "tokenizer.json").write_text("{}")
    assert find_tokenizer(tmp_path / "models" / "gpt-oss-20b") is None
