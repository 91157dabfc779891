"""What MkDocs needs for the site: pages made from the repository, and links that leave docs/.

In the repository a page links to `../src/...`, `../recipes/...` or `../CONTRIBUTING.md`, and those links work there.
Here they are led to where the site has the same thing: the API's page, the recipes' page, or a copy of the file.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import notebook
import site_api
import site_commands
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md", "RELEASING.md": "releasing.md",
}  # fmt: skip
NOTEBOOKS = {"examples/quickstart.ipynb": "quickstart.md"}
RECIPES, KEYS, COMMANDS, OVERVIEW = "recipes.md", "recipe-keys.md", "commands.md", "reference/overview.md"
LINK = re.compile(r"(\]\()(?!\w+:|#)([^)#\s]+)(#[^)\s]*)?(\))")
BLOCK = re.compile(r"^```math\n(.*?)^```$", re.M | re.S)
INLINE = re.compile(r"\$`([^`\n]+)`\$")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add to the nav the API's pages, and the pages of docs/ that it does not name."""
    nav: list[dict[str, Any]] = config.nav  # type: ignore[assignment]
    sections = {name: pages for each in nav for name, pages in each.items()}
    named = {page for pages in sections.values() if isinstance(pages, list) for page in pages}
    found = {path.relative_to(config.docs_dir).as_posix() for path in Path(config.docs_dir).rglob("*.md")}
    sections["Tasks"] += sorted(found - named)
    sections["Python"] += [OVERVIEW, *(_api_page(name) for name in site_api.groups())]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made here, and copies of the files that pages link to."""
    texts = {page: (ROOT / source).read_text(encoding="utf-8") for source, page in PAGES.items()}
    texts |= {_api_page(name): site_api.page_text(group) for name, group in site_api.groups().items()}
    texts |= {RECIPES: _recipes(), KEYS: _keys(), COMMANDS: site_commands.page_text(), OVERVIEW: site_api.overview()}
    texts |= {page: notebook.as_markdown(notebook.read(ROOT / source)) for source, page in NOTEBOOKS.items()}
    for page, text in texts.items():
        files.append(File.generated(config, page, content=text))
    copied = {_target(match, file.src_uri) for file in files.documentation_pages() for match in _links(file)}
    for target in sorted(each for each in copied if each is not None and each.startswith("files/")):
        files.append(File.generated(config, target, abs_src_path=str(ROOT / target.removeprefix("files/"))))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where the site has what they name, and write equations as MathML."""

    def lead(match: re.Match[str]) -> str:
        target = _target(match, page.file.src_uri)
        if target is None:
            return match[0]
        place, _, anchor = target.partition("#")
        relative = posixpath.relpath(place, posixpath.dirname(page.file.src_uri) or ".")
        anchor = f"#{anchor}" if anchor else match[3] or ""
        return f"{match[1]}{relative}{anchor}{match[4]}"

    markdown = BLOCK.sub(
        lambda match: f'<div class="equation">{convert(match[1], display="block")}</div>', LINK.sub(lead, markdown)
    )
    return INLINE.sub(lambda match: convert(match[1]), markdown)


def _links(file: File) -> Iterator[re.Match[str]]:
    return LINK.finditer(file.content_string)


def _target(match: re.Match[str], page: str) -> str | None:
    """Where in the site a link of a page leads; None for what the repository does not have, which MkDocs then says."""
    source = next((name for name, made in (PAGES | NOTEBOOKS).items() if made == page), f"docs/{page}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
    if path.startswith("..") or not (ROOT / path).exists():
        return None
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("src/angulus/") and path.endswith(".py"):
        module = path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, group in site_api.groups().items():
            if module in group.names:
                return f"{_api_page(name)}#{module}"
    if path.startswith("recipes"):
        return RECIPES
    return (PAGES | NOTEBOOKS).get(path, f"files/{path}")


def _api_page(name: str) -> str:
    return f"reference/{name}.md"


def _recipes() -> str:
    """Every shipped recipe, whole."""
    texts = [f"## {path.stem}\n\n```yaml\n{path.read_text()}```\n" for path in sorted(ROOT.glob("recipes/*.yaml"))]
    about = "What `angulus train NAME` and `angulus compare NAME` take. The head of each says how it is run.\n\n"
    return "# Recipes\n\n" + about + "\n".join(texts)


def _keys() -> str:
    """Every key of a recipe, in a table for each section."""
    from angulus.experiments.recipe_keys import list_keys

    single = "Sections and single keys"
    groups: dict[str, list[str]] = {single: []}
    for key in list_keys():
        top, dot, _ = key.path.partition(".")
        default = f", by default `{key.default}`" if key.default not in ("", "required") else f"; {key.default}"
        cells = (f"`{key.path}`", f"{key.about}<br>*{key.type}*{default.removesuffix('; ')}")
        row = f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
        groups.setdefault(top if dot else single, []).append(row)
    head = "| key | what it is |\n|---|---|\n"
    tables = [f"## {name}\n\n{head}" + "\n".join(rows) + "\n" for name, rows in groups.items()]
    about = (
        "The same in the terminal: `angulus list keys`, or `angulus list keys training.optimizer` for a part. NAME "
        "stands for a name of your own, and `[]` for each item of a list. The keys of `objective` are those of the "
        "[losses](losses.md).\n\n"
    )
    return "# Recipe keys\n\n" + about + "\n".join(tables)
