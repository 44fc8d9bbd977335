"""What the site takes from the checkout: its first page, its navigation, links out of docs/.

MkDocs calls these functions by their names (`hooks` in .mkdocs.yml).
"""

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"

OUTSIDE = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changes.md": "CHANGELOG.md",
}
"""Pages whose text lies outside of docs/, so that GitHub shows it where it is looked for."""

SECTIONS: dict[str, list[str]] = {
    "Begin": ["index.md", "tutorial.md", "questions.md"],
    "How to": ["how-to.md", "how-to/*.md"],
    "Other tools": ["integrations.md", "how-to/coming-from-*.md"],
    "Reference": [
        *("commands.md", "python.md", "reference.md", "operators.md"),
        "troubleshooting.md",
    ],
    "Behind it": [
        "method.md",
        "benchmarks.md",
        "coverage.md",
        "frameworks.md",
        "design.md",
        "*.md",
    ],
    "Extend": ["how-to/add-*.md", "contributing.md"],
    "Changes": ["changes.md"],
}
"""The navigation: pages, or patterns. A page is in the section whose pattern is the longest."""

LINK = re.compile(r"(\]\(<?|\b(?:src|href)=\")([^)\s>\"]+)")
CODE = re.compile(r"^(`{3,}).*?^\1`*$|`[^`\n]+`", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every page of docs/ into the navigation."""
    pages = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
    pages += OUTSIDE
    config.nav = [{title: _of(title, pages)} for title in SECTIONS if _of(title, pages)]
    return config


def _of(section: str, pages: list[str]) -> list[str]:
    """The pages of a section, in the order of its patterns."""
    own = [page for page in pages if _section(page) == section]
    ordered = (page for pattern in SECTIONS[section] for page in own if _matches(page, pattern))
    return list(dict.fromkeys(ordered))


def _section(page: str) -> str:
    """The section of a page: that of the longest pattern which fits."""
    fits = [(len(p), title) for title, ps in SECTIONS.items() for p in ps if _matches(page, p)]
    return max(fits, default=(0, ""))[1]


def _matches(page: str, pattern: str) -> bool:
    return Path(page).parent == Path(pattern).parent and Path(page).match(pattern)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of docs/."""
    for page, source in OUTSIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """Lead links to where their targets are on the site, or to the repository."""
    name = page.file.src_uri
    source = OUTSIDE.get(name, f"docs/{name}")
    kept: list[str] = []

    def away(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    def lead(match: re.Match[str]) -> str:
        target = match[2]
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        return match[1] + _target(target, source, name, str(config.repo_url))

    text = LINK.sub(lead, CODE.sub(away, markdown))
    return re.sub(r"\0(\d+)\0", lambda match: kept[int(match[1])], text)


def _target(target: str, source: str, page: str, repository: str) -> str:
    file, hash_, anchor = target.partition("#")
    place = posixpath.normpath(posixpath.join(posixpath.dirname(source), file))
    inside = {source: page for page, source in OUTSIDE.items()}.get(place)
    if inside is None and place.startswith("docs/"):
        inside = place.removeprefix("docs/")
    if inside is None:
        kind = "tree" if (ROOT / place).is_dir() else "blob"
        return f"{repository}/{kind}/main/{place}{hash_}{anchor}"
    return posixpath.relpath(inside, posixpath.dirname(page) or ".") + hash_ + anchor
