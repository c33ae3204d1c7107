"""The README keeps its word: what it points to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = {path.relative_to(ROOT).as_posix(): path for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))}


def test_each_promise_names_a_test_that_exists():
    table = README.split("## What it promises")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| promise", "|---"))]
    assert len(rows) > 10
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for row in rows:
        shown = row.rstrip("| ").split(" | ")[-1]
        tests, makes = re.findall(r"`(tests/[\w./]+)`", shown), re.findall(r"`make ([\w-]+)`", shown)
        assert tests or makes, row
        assert all((ROOT / path).is_file() for path in tests), row
        assert set(makes) <= targets, row


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_is_there(page):
    text = PAGES[page].read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+?)\)", text):
        if "://" not in target:
            assert (PAGES[page].parent / target).exists(), target


def test_every_notebook_and_every_page_is_named():
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        assert path.stem in README, path.name
    linked = "".join(path.read_text(encoding="utf-8") for path in PAGES.values())
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in linked, page.name
