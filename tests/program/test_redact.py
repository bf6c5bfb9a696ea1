"""Secrets by what they are called, in every form in which a command, a recipe or a log may hold them."""

import pytest

from mini_r1.program.problems import UserError
from mini_r1.program.redact import REDACTED, redact, take_api_key

SECRET = "s3cr3t-value"


@pytest.mark.parametrize(
    "text",
    [
        f"vllm serve model --api-key {SECRET} --port 1",
        f"--api-key={SECRET}",
        f"['serve', '--api-key', '{SECRET}']",
        f"vllm_server_args: --api-key {SECRET}",
        f'"vllm_server_args": "--api-key {SECRET} --port 8000"',
        f"api_key: {SECRET}",
        f"non-default args: {{'api_key': ['{SECRET}', 'other'], 'port': 1}}",  # as vLLM logs them
        f'{{"wandb_api_key": "{SECRET}"}}',
        f"{{'hub_token': '{SECRET}'}}",
        f"hub_token={SECRET}, seed=1",
        f"--hub_token {SECRET}",
        f"OPENAI_API_KEY={SECRET}",
        f"export MY_TOKEN={SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"password: {SECRET}",
        f"https://example.org/x?token={SECRET}&page=2",
        f"https://user:{SECRET}@example.org/x",
        f"Authorization: Bearer {SECRET}",
        f"authorization: Basic {SECRET}",
    ],
)
def test_a_secret_is_replaced_and_its_name_stays(text: str) -> None:
    shown = redact(text)
    assert SECRET not in shown
    assert REDACTED in shown


@pytest.mark.parametrize(
    "text",
    [
        "the token may not write there (403): set HF_TOKEN to a token with write permission",
        "max_tokens=512, pad_token: <pad>, eos_token=<|im_end|>, tokens: 12",
        "python scripts/run_r1_grpo.py --config receipes/x.yaml --max_completion_length 1024",
        "--logprobs-mode processed_logprobs --max-logprobs -1",
    ],
)
def test_other_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    "given",
    ["--api-key {a} {b}", "--api-key {a} --seed 3 --api_key={b}", "--api_key={a} --api-key {b} --seed 3"],
)
def test_every_key_of_the_server_is_taken_and_remembered(given: str) -> None:
    keys = {"a": "one-of-no-shape", "b": "other-of-no-shape"}
    others, key = take_api_key(given.format(**keys))
    assert key == keys["a"] and not set(others) - {"--seed", "3"}
    assert redact(f"{keys['a']} and {keys['b']}") == f"{REDACTED} and {REDACTED}"


@pytest.mark.parametrize("given", ["--api-key", "--seed 1 --api-key", "--api-key --seed 1", "--api-key 'open"])
def test_a_key_that_is_none_is_refused_in_words(given: str) -> None:
    with pytest.raises(UserError, match=r"vllm_server_args .* Fix: "):
        take_api_key(given)
