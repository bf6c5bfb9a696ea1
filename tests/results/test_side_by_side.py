"""The table of completions in the notebook; the curves and the diary are tested by running the notebook itself."""

from datasets import Dataset

from mini_r1.generation.sampling import Completion
from mini_r1.results.notebook import side_by_side
from mini_r1.tasks.countdown.task import Countdown

PUZZLES = Dataset.from_dict({"nums": [[1, 2, 3]], "target": [6]})


def table(text: str, longest: int = 1200) -> str:
    return str(side_by_side(PUZZLES, Countdown(), {"step 0": [Completion(text, 9, truncated=False)]}, longest).data)


def test_table_says_puzzle_verdict_and_length() -> None:
    page = table("so</think><answer>1 + 2 + 3</answer>")
    assert "1, 2, 3 → 6" in page
    assert "✓ correct, 9 tokens" in page
    assert "✗ wrong_value, 9 tokens" in table("so</think><answer>1 + 2 - 3</answer>")


def test_a_completion_stays_text_whatever_it_holds() -> None:
    page = table("<script>alert(1)</script></pre><img src=x onerror=alert(1)>")
    assert "<script" not in page
    assert "<img" not in page
    assert page.count("</pre>") == 1


def test_a_long_completion_is_cut_in_its_middle() -> None:
    page = table("a" * 5000 + "z" * 5000, longest=100)
    assert f"{'a' * 50}\n[… 9900 characters …]\n{'z' * 50}" in page
