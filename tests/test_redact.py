"""Secrets by what they are called, in every form in which a command, a recipe or a log may hold them."""

import pytest

from mini_r1.redact import REDACTED, redact

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
