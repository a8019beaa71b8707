"""The logits of gpt-oss, held against its references on random checkpoints, in float32.

    checkpoints.py    the models of the suite: shapes, seeds and lengths, and how they are made
    comparison.py     two sets of logits -> figures and a verdict: the one that every test here uses
    mlx_lm_model.py   stock mlx-lm, as it is and corrected
    references.py     OpenAI's torch model and transformers' GptOssForCausalLM (both optional)
    golden/           what these two gave; make_golden.py writes it
    figures.py        prints the table of differences

All tests run everywhere, but for those of test_live.py: these need torch, gpt-oss and transformers.
"""
