"""What the README files point at is there: links and their headings, paths, names that their Python imports, settings."""

import ast
import importlib
import re
from pathlib import Path

import pytest

from meta_animator.fields import all_fields

ROOT = Path(__file__).parents[1]
TOPS = ("meta_animator", "scripts", "configs", "assets", "tests")  # with what a path begins
PAGES = [ROOT / "README.md", *(page for top in TOPS for page in sorted((ROOT / top).rglob("*.md")))]


def text_of(page: Path) -> str:
    return page.read_text()


def anchors(page: Path) -> set[str]:
    """The headings of a page as GitHub links to them."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_lead_somewhere(page):
    lost = []
    for link in re.findall(r"\]\((?!http)([^)]+)\)", text_of(page)):
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        target = target / "README.md" if heading and target.is_dir() else target
        if not target.exists() or (heading and heading not in anchors(target)):
            lost.append(link)
    paths = re.findall(rf"(?<![\w/.])(?:{'|'.join(TOPS)})/[\w./-]*\w(?![\w*{{])", text_of(page))
    assert not lost + [path for path in paths if not (ROOT / path).exists() and not path.endswith("/x.py")]


def test_every_concept_is_where_the_table_says():
    table = text_of(ROOT / "README.md").partition("## Where is what")[2].partition("\n## ")[0]
    paths = re.findall(r"`([\w/]+(?:\.py|/))`", table.partition("|---|---|")[2])
    assert len(paths) >= 20 and not [path for path in paths if not (ROOT / "meta_animator" / path).exists()]


def test_the_map_shows_every_room():
    map_of_the_house = text_of(ROOT / "README.md").partition("## Map of the house")[2]
    rooms = {folder.parent.name for folder in (ROOT / "meta_animator").glob("*/__init__.py")}
    assert not [room for room in rooms if not re.search(rf"\b{room}/ ", map_of_the_house)]
    assert set(re.findall(r"^  (\w+)/ ", map_of_the_house, re.M)) <= rooms


def test_settings_that_the_pages_name_exist():
    known = {field.key for field in all_fields()}
    sections = "model|data|loss|train|sample|extract"
    named = {key for page in PAGES for key in re.findall(rf"`\"?((?:{sections})\.[a-z_.]+?)[=`\" ]", text_of(page))}
    assert len(named) > 40 and not named - known


def test_what_the_pages_import_is_there():
    blocks = [block for page in PAGES for block in re.findall(r"```python\n(.*?)```", text_of(page), re.S)]
    imports = [
        node for block in blocks if "import meta_animator" in block or "from meta_animator" in block
        for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom) and node.module.startswith("meta_animator")
    ]  # fmt: skip
    assert len(imports) >= 4
    for node in imports:
        module = importlib.import_module(node.module)
        assert not [name.name for name in node.names if not hasattr(module, name.name)], node.module
