"""The page of `angulus prepare faces`: crops to look at, and the photos that are not plainly one good face."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from angulus.core.wording import plural
from angulus.data.faces.align import Note, Problem
from angulus.data.records import Row

TABLE = "report.csv"  # lists all photos with a note
SAMPLE = 48  # crops on the page
PICTURES = 200  # photos per problem, in the journal and on the page

_STYLE = (  # light-dark: as the reader's system has it
    ":root{color-scheme:light dark;--ground:light-dark(#fff,#15181d);--text:light-dark(#1b1f24,#e3e7ec);"
    "--quiet:light-dark(#57606a,#9aa4b0);--line:light-dark(#d5dae0,#3a424c);--no:light-dark(#b3261e,#ff8f87);"
    "--yes:light-dark(#1a7f37,#5fd07a);--link:light-dark(#0b57a4,#7db7f5)}"
    "*{box-sizing:border-box}body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:76rem;"
    "padding:1rem 1rem 3rem;background:var(--ground);color:var(--text);overflow-wrap:anywhere}"
    "h1{font-size:1.6rem;line-height:1.2;margin:.5rem 0}h2{font-size:1.3rem;margin:2rem 0 .3rem}p{max-width:75ch}"
    "a{color:var(--link)}.scroll{overflow-x:auto}table{border-collapse:collapse}"
    "td,th{padding:.3rem 1.2rem .3rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line);"
    "overflow-wrap:normal}td:nth-child(2){text-align:right}"
    "ul{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr));gap:1rem;list-style:none;"
    "padding:0}ul.crops{grid-template-columns:repeat(auto-fill,minmax(7.5rem,1fr))}"
    "li{font-size:.875rem;line-height:1.35}img{display:block;max-width:100%;margin-bottom:.3rem}"
    ".pair{display:flex;gap:.5rem;align-items:start}.pair img:first-child{max-width:60%}.pair img+img{max-width:36%}"
    ".quiet,.kept,.none{color:var(--quiet)}.kept b{color:var(--yes)}.none b{color:var(--no)}"
)
_MEANINGS: dict[str, str] = {  # of each problem, and what to do
    "left out": "Not an image that can be read, or a repeated name.",
    "cannot be read": "The file begins like an image, but cannot be decoded: copy it again from its source.",
    "no face": "The detector found none. Look whether there is one: a turned or very large photo can hide it.",
    "too small": "The best face is smaller than --min-size: use a larger photo, or a lower --min-size.",
    "low score": "The best face has a score below --min-score: it may be blurred, covered or no face at all.",
    "cannot be aligned": "The landmarks do not fit the template.",
    "several faces": "One of them was taken, framed in green: look whether it is the right person.",
    "one photo": "The person has one crop, so there is no genuine pair.",
}


@dataclass(frozen=True)
class PageCrops:
    """What the page shows of the records: how many crops and people, some crops, and those of photos with a note."""

    count: int
    people: int
    sample: Sequence[Row]
    noted: Mapping[str, bytes]  # the crop of a photo with a note, by id


def count_problems(notes: Sequence[Note]) -> dict[str, int]:
    """Count the notes of each problem that occurs.

    >>> count_problems([Note("1.jpg", "ann", "no face", False, "no face was found")])
    {'no face': 1}
    """
    numbers = Counter(note.problem for note in notes)
    return {problem: numbers[problem] for problem in get_args(Problem) if numbers[problem]}


def render(notes: Sequence[Note], title: str, crops: PageCrops | None) -> str:
    """The page; all that comes from file names is escaped, and its policy runs no script and loads nothing."""
    numbers = count_problems(notes)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">",
        f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{_summary(notes, crops)}</p>",
    ]
    if numbers:
        parts.append(_problem_table(numbers))
    if crops is not None:
        parts += _sample(crops)
    for name, count in numbers.items():
        shown = [note for note in notes if note.problem == name][:PICTURES]
        rest = f" The first {len(shown):,}; {TABLE} has all." if len(shown) < count else ""
        parts.append(f'<h2 id="{_anchor(name)}">{name.capitalize()}</h2>')
        parts.append(f"<p>{_MEANINGS[name]} {count:,} in all.{rest}</p><ul>")
        parts += [_item(note, crops.noted.get(note.id, b"") if crops and note.kept else b"") for note in shown]
        parts.append("</ul>")
    return "\n".join([*parts, "</body></html>\n"])


def _summary(notes: Sequence[Note], crops: PageCrops | None) -> str:
    refused = len({note.id for note in notes if not note.kept})
    looked = len({note.id for note in notes if note.kept})
    kept = "This run has not finished."
    if crops is not None:
        kept = f"{_crops(crops.count)} of {crops.people:,} {'person' if crops.people == 1 else 'people'}."
    if not notes:
        return f"{kept} Nothing to report."
    files = f"{refused:,} {plural('photo', refused)} or {plural('file', refused)} gave no crop"
    return f"{kept} {files}; {_crops(looked)} {'has' if looked == 1 else 'have'} a note."


def _crops(count: int) -> str:
    return f"{count:,} {plural('crop', count)}"


def _problem_table(numbers: Mapping[str, int]) -> str:
    rows = [
        f'<tr><td><a href="#{_anchor(name)}">{name}</a></td><td>{count:,}</td><td>{_MEANINGS[name]}</td></tr>'
        for name, count in numbers.items()
    ]
    head = "<tr><th>note</th><th>count</th><th>what it means</th></tr>"
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def _sample(crops: PageCrops) -> list[str]:
    which = "All crops." if len(crops.sample) == crops.count else f"{len(crops.sample):,} of {crops.count:,} crops."
    ask = "Eyes should be level and at one height, and each crop should show the person that its name says."
    parts = [f'<h2 id="crops">Crops to look at</h2><p>{which} {ask}</p><ul class="crops">']
    for crop in crops.sample:
        score = "" if crop.score is None else f"score {crop.score:.3f}"
        person = html.escape(crop.identity) or "unknown person"
        words = f'<b>{person}</b><br><span class="quiet">{html.escape(crop.id)}<br>{score}</span>'
        parts.append(f"<li>{_image(crop.image, f'crop of {crop.id}')}{words}</li>")
    return [*parts, "</ul>"]


def _item(note: Note, crop: bytes) -> str:
    pictures = _image(note.picture, f"photo {note.id}") + _image(crop, f"crop of {note.id}")
    state = ("kept", "Kept") if note.kept else ("none", "No crop")
    detail = f'<span class="{state[0]}"><b>{state[1]}</b>: {html.escape(note.detail)}</span>'
    return f'<li><div class="pair">{pictures}</div><b>{html.escape(note.id)}</b><br>{detail}</li>'


def _image(data: bytes, alt: str) -> str:
    if not data:
        return ""
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    source = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(alt)}" src="data:image/{kind};base64,{source}">'


def _anchor(problem: str) -> str:
    return problem.replace(" ", "-")
