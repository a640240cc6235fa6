"""A page read back with html.parser, as a browser would see its text and attributes."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

VOID = {"meta", "link", "img", "input", "path", "br"}


@dataclass
class Node:
    """An element with its children; ``words`` is the text directly in it."""

    tag: str
    attributes: dict[str, str]
    children: list[Node] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text within, in order of the document as far as these pages need it."""
        return "".join([*self.words, *(child.text for child in self.children)])

    def all(self, tag: str | None = None, kind: str | None = None) -> list[Node]:
        """Elements within by tag and class, in the document's order."""
        found = []
        for child in self.children:
            wanted = kind is None or kind in child.attributes.get("class", "").split()
            if wanted and tag in (None, child.tag):
                found.append(child)
            found += child.all(tag, kind)
        return found

    def one(self, tag: str | None = None, kind: str | None = None) -> Node:
        """The only such element."""
        (node,) = self.all(tag, kind)
        return node


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("", {})
        self.stack = [self.root]

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.stack[-1].children.append(node)
        if tag not in VOID:
            self.stack.append(node)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.stack[-1].children.append(Node(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.stack[-1].tag == tag, f"</{tag}> closes <{self.stack[-1].tag}>"
            self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].words.append(data)


def parse(text: str) -> Node:
    """The page; AssertionError where its elements do not nest."""
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert len(parser.stack) == 1, parser.stack[-1].tag
    return parser.root
