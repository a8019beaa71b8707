"""The lines for people: the table, and what stands around it."""

from __future__ import annotations

from dataclasses import replace

from gptoss_mlx.bench.text import as_text

from .made_up import SYSTEM, TOLD, WORKLOAD, results, turns, without_batch_rates

TEXT = """\
Apple M4 Pro, MLX on the GPU, 14 CPU cores, 48 GiB, macOS 26.1
Python 3.12.1, gptoss-mlx 0.1.0, mlx 0.32.4, mlx-lm 0.32.2
20b (24 layers, 32 experts, q8, 12.00 GiB)
gptoss-mlx: bfloat16, 11 of 12 kernels on, loaded in 2.00 s, weights 11.00 GiB, peak RSS 15.00 GiB
mlx-lm: bfloat16, loaded in 2.00 s, weights 11.00 GiB, peak RSS 15.00 GiB

| context |            | prefill | decode |   TTFT |   warm |   GiB | roofline |
| ------: | :--------- | ------: | -----: | -----: | -----: | ----: | -------: |
|     512 | gptoss-mlx |  10,000 |    100 |  51 ms |  50 ms | 12.00 |      92% |
|         | mlx-lm     |   8,000 |   80.0 |  64 ms |  62 ms | 12.00 |      73% |
|         | ratio      |    1.25 |   1.25 |   0.80 |   0.80 |  1.00 |          |
|   4,096 | gptoss-mlx |   1,000 |   50.0 | 4.10 s |  90 ms | 13.00 |      48% |
|         | mlx-lm     |     800 |   40.0 | 5.12 s | 112 ms | 13.00 |      38% |
|         | ratio      |    1.25 |   1.25 |   0.80 |   0.80 |  1.00 |          |

| batch |            | decode |   GiB |
| ----: | :--------- | -----: | ----: |
|     1 | gptoss-mlx |    100 | 12.00 |
|       | mlx-lm     |   80.0 | 12.00 |
|       | ratio      |   1.25 |  1.00 |
|     8 | gptoss-mlx |    400 | 15.00 |
|       | mlx-lm     |    320 | 15.00 |
|       | ratio      |   1.25 |  1.00 |

- medians of 3 rounds, whose decode rates differ by up to 33%; 64 tokens decoded, greedily
- prefill, decode: tok/s; TTFT: time to the first token, nothing cached; warm: the same for the \
next turn, of 32 tokens
- batch: so many sequences decode together, each after a prompt of 512 tokens
- GiB: what MLX held at most
- roofline: 273 GB/s (M4 Pro; 245 GB/s as MLX reads an array here), by what is read for a token: \
2.5 GB at 512, 2.6 GB at 4,096
- ratio: gptoss-mlx by mlx-lm
- context 16,384 is left out: too long""".splitlines()


def test_the_text() -> None:
    """Machine, model, sides; two tables; what the figures are; what was left out."""
    found = results(TOLD, notes=("context 16,384 is left out: too long",))
    assert list(as_text(found)) == TEXT


def test_lines_of_one_side_fit_a_terminal() -> None:
    """Without a comparison there is no column for it, and no ratio."""
    lines = list(as_text(results(turns("gptoss-mlx", 100), ("gptoss-mlx",))))
    assert "|     512 |  10,000 |    100 |  51 ms | 50 ms | 12.00 |      92% |" in lines
    assert not any("mlx-lm" in line for line in lines[3:])
    assert not any("ratio" in line for line in lines)


def test_a_round_that_was_cut_short() -> None:
    """A row for what only one side has, without ratios; and where it was stopped."""
    found = results([*TOLD[:2], *turns("mlx-lm", 80, rounds=1)], is_complete=False)
    lines = list(as_text(found))
    for row in (
        "|         | ratio      |    1.25 |   1.25 |   0.80 |   0.80 |  1.00 |          |",
        "|   4,096 | gptoss-mlx |       - |      - |      - |      - |     - |        - |",
        "|         | ratio      |       - |      - |      - |      - |     - |          |",
    ):
        assert row in lines
    (note,) = (line for line in lines if line.startswith("- medians of "))
    assert note.startswith("- medians of what there was when it was stopped, in round 1 of 3")


def test_no_common_time() -> None:
    """A batch whose sequences never decoded together has no rate."""
    lines = list(as_text(results(without_batch_rates(TOLD))))
    assert "|     1 | gptoss-mlx |      - | 12.00 |" in lines


def test_what_only_ours_has_is_said() -> None:
    """Settings that mlx-lm does not have, and the dtype that it is given on a CPU."""
    workload = replace(WORKLOAD, kv_bits=8, embedding="disk")
    found = replace(results(TOLD, workload=workload), system=replace(SYSTEM, on_gpu=False))
    assert list(as_text(found))[-4:] == [
        "- keys and values in 8 bits: gptoss-mlx only",
        "- embedding table on disk: gptoss-mlx only",
        "- ratio: gptoss-mlx by mlx-lm",
        "- mlx-lm in float32, too: in the checkpoint's bfloat16 MLX is slow on a CPU",
    ]
    alone = replace(found, sides=("gptoss-mlx",))
    assert list(as_text(alone))[-1] == "- embedding table on disk"
