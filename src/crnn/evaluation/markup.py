"""HTML and SVG as trees of elements, so that no text can become markup, and the page that holds them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from xml.etree.ElementTree import Element, tostring

from crnn import __version__

Child = Element | str | None

# What a browser may load for the page: nothing but the pictures in it. No script runs, wherever it came from.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LONGEST = 200  # characters of a label that are shown
_JOINERS = "\u200c\u200d"  # have no shape of their own, but give their neighbours in Persian or Hindi theirs


def tag(name: str, *children: Child, **attributes: str | float | None) -> Element:
    """An element with its content in order. Of an attribute's name, ``_`` stands for ``-``, and one at the end is cut
    off (``class_``, ``aria_label``); None leaves the attribute or the child out. Texts go through :func:`visible`.
    """
    element = Element(name)
    for key, value in attributes.items():
        if value is not None:
            written = visible(value) if isinstance(value, str) else number(value)
            element.set(key.removesuffix("_").replace("_", "-"), written)
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            element.append(child)
            last = child
        elif child is not None:
            if last is None:
                element.text = (element.text or "") + visible(child)
            else:
                last.tail = (last.tail or "") + visible(child)
    return element


def visible(text: str) -> str:
    """``text`` with code points instead of what cannot be seen or cannot be in a page.

    Control characters, unpaired surrogates, unassigned characters, marks of writing direction: ``<U+202E>``.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _JOINERS or c == "\n" else f"<U+{ord(c):04X}>" for c in text)


def number(value: float, digits: int = 2) -> str:
    """A number without needless zeros."""
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def word(text: str) -> Element:
    """A label or a text: set apart from the direction of writing around it, an empty one named, the end of a very long
    one left out.
    """
    if not text:
        return tag("span", "empty", class_="empty")
    return tag("bdi", text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…", class_="word")


def table(
    caption: str,
    headings: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    texts: Collection[int] = (0,),
    last: bool = False,
) -> Element:
    """A table; the first cell of a row is its heading, the columns ``texts`` hold texts and the others figures.

    ``last`` sets the last row apart, as a total. A table too wide for the window scrolls, by the keyboard too.
    """

    def cell(k: int, child: Child, heading: bool = False) -> Element:
        scope = ("col" if heading else "row") if heading or k == 0 else None
        return tag("th" if scope else "td", child, scope=scope, class_=None if k in texts else "figure")

    head = tag("thead", tag("tr", *[cell(k, heading, True) for k, heading in enumerate(headings)]))
    body = tag("tbody", *[tag("tr", *[cell(k, child) for k, child in enumerate(row)]) for row in rows])
    if last:
        body[-1].set("class", "total")
    content = tag("table", tag("caption", caption), head, body)
    return tag("div", content, class_="scroll", role="region", aria_label=caption, tabindex="0")


def described(pairs: Iterable[tuple[str, Child]]) -> Element:
    """Names and what they stand for."""
    return tag("dl", *[each for name, value in pairs for each in (tag("dt", name), tag("dd", value))])


def folded(summary: str, *children: Child) -> Element:
    """Something that is shown when it is asked for."""
    return tag("details", tag("summary", summary), *children)


def section(name: str, heading: str, *children: Child) -> Element:
    """A part of the page, which the list at its top leads to."""
    return tag(
        "section", tag("h2", heading, id=f"{name}-heading"), *children, id=name, aria_labelledby=f"{name}-heading"
    )


def warnings(notes: Sequence[str]) -> Element | None:
    """What a reader of the page has to know before anything else, None if there is nothing."""
    if not notes:
        return None
    lines = [tag("li", note) for note in notes]
    return tag("aside", tag("strong", "Please note"), tag("ul", *lines), class_="notes", aria_label="Please note")


def page(title: str, notes: Sequence[str], sections: Sequence[Element]) -> str:
    """One HTML file that needs nothing else: it loads nothing and runs nothing."""
    links = [tag("li", tag("a", each[0].text or "", href=f"#{each.get('id')}")) for each in sections]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="color-scheme", content="light dark"),
        tag("meta", name_="generator", content=f"crnn {__version__}"),
        tag("title", title),
        tag("style", files("crnn.evaluation").joinpath("page.css").read_text(encoding="utf-8")),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), tag("nav", tag("ul", *links), aria_label="Sections")),
        tag("main", warnings(notes), *sections),
        tag("footer", tag("p", f"Made by crnn {__version__}.")),
    )
    return "<!doctype html>\n" + tostring(tag("html", head, body, lang="en"), encoding="unicode", method="html") + "\n"
