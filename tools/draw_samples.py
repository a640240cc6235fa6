"""Draw the sample pictures of the demo, docs/samples/: two each of six kinds of things, from plain shapes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

Point = tuple[float, float]  # x to the right, y down, 0..100 across the picture
Colour = tuple[int, int, int]  # R, G, B

SIZE = 192  # pixels each way, as saved
ZOOM = 4  # drawn this much larger and shrunk, for smooth edges
BLACK, WHITE, GLASS, TYRE = (25, 25, 28), (245, 245, 245), (150, 185, 205), (35, 35, 38)


class Canvas:
    """A picture being drawn, in hundredths of its width."""

    def __init__(self, top: Colour, bottom: Colour, seed: int) -> None:
        self.rng = np.random.RandomState(seed)
        share = np.linspace(0, 1, SIZE * ZOOM)[:, None, None]
        rows = np.array(top[::-1]) * (1 - share) + np.array(bottom[::-1]) * share
        self.image = np.broadcast_to(rows, (SIZE * ZOOM, SIZE * ZOOM, 3)).astype(np.uint8).copy()

    def area(self, points: Sequence[Point], colour: Colour) -> None:
        """A filled polygon."""
        corners = np.array(points) * (SIZE * ZOOM / 100)
        cv2.fillPoly(self.image, [np.rint(corners).astype(np.int32)], colour[::-1])

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """A filled rectangle."""
        self.area([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour)

    def oval(self, x: float, y: float, a: float, b: float, colour: Colour, angle: float = 0.0) -> None:
        """A filled ellipse with half axes a and b."""
        scale = SIZE * ZOOM / 100
        centre, axes = (round(x * scale), round(y * scale)), (round(a * scale), round(b * scale))
        cv2.ellipse(self.image, centre, axes, angle, 0, 360, colour[::-1], cv2.FILLED)

    def line(self, points: Sequence[Point], colour: Colour, width: float) -> None:
        """An open line of the given width."""
        scale = SIZE * ZOOM / 100
        corners = np.rint(np.array(points) * scale).astype(np.int32)
        cv2.polylines(self.image, [corners], False, colour[::-1], max(1, round(width * scale)), cv2.LINE_AA)

    def ground(self, y: float, near: Colour, far: Colour) -> None:
        """Everything below y, shaded from far to near."""
        for step in range(20):
            share = step / 19
            mixed = [round(f * (1 - share) + n * share) for f, n in zip(far, near, strict=True)]
            self.box(
                0, y + (100 - y) * step / 20, 100, y + (100 - y) * (step + 1) / 20 + 1, (mixed[0], mixed[1], mixed[2])
            )

    def clouds(self, count: int) -> None:
        """Soft white heaps in the upper half."""
        for _ in range(count):
            x, y = self.rng.uniform(5, 95), self.rng.uniform(8, 45)
            for _ in range(5):
                dx, dy = self.rng.uniform(-8, 8), self.rng.uniform(-2, 2)
                self.oval(x + dx, y + dy, self.rng.uniform(5, 9), self.rng.uniform(2, 4), (236, 241, 246))

    def finished(self) -> np.ndarray:
        """The picture at its size, with a little grain so that areas are not quite flat."""
        image = cv2.resize(self.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA).astype(np.float32)
        image = cv2.GaussianBlur(image, (0, 0), 0.7) + self.rng.standard_normal((SIZE, SIZE, 1)) * 2.5
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def plane(body: Colour, mark: Colour, tilt: float, seed: int) -> np.ndarray:
    """An airliner in the sky, seen from the side, climbing by ``tilt`` degrees."""
    canvas = Canvas((70, 130, 205), (185, 215, 240), seed)
    canvas.clouds(4)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])

    def at(*points: Point) -> list[Point]:
        return [(float(p[0]), float(p[1])) for p in (np.array(points) - 50) @ turn.T + 50]

    shade = (body[0] * 3 // 4, body[1] * 3 // 4, body[2] * 3 // 4)
    canvas.area(at((16, 47), (8, 26), (17, 26), (31, 46)), mark)
    canvas.area(at((47, 46), (40, 32), (45, 32), (60, 46)), shade)
    fuselage = [(50 + 42 * np.cos(a), 50 + 6.5 * np.sin(a)) for a in np.linspace(0, 2 * np.pi, 60)]
    canvas.area(at(*fuselage), body)
    canvas.line(at((14, 51), (88, 51)), mark, 1.4)
    for x in range(30, 80, 5):
        canvas.area(at((x, 46.5), (x + 2, 46.5), (x + 2, 48.5), (x, 48.5)), GLASS)
    canvas.area(at((83, 45.5), (89, 47.5), (83, 48)), BLACK)
    canvas.area(at((42, 52), (62, 52), (36, 76), (28, 76)), shade)
    canvas.area(at((14, 51), (24, 51), (13, 60), (8, 60)), shade)
    canvas.area(at((46, 60), (56, 60), (56, 65), (46, 65)), mark)
    return canvas.finished()


def ship(hull: Colour, house: Colour, sky: Colour, seed: int) -> np.ndarray:
    """A freighter on the sea."""
    canvas = Canvas(sky, (215, 226, 236), seed)
    canvas.clouds(2)
    canvas.ground(62, (24, 62, 105), (80, 130, 165))
    canvas.area([(8, 52), (93, 50), (84, 72), (16, 72)], hull)
    canvas.area([(15, 69), (86, 69), (84, 73), (17, 73)], (150, 45, 40))
    canvas.box(18, 36, 36, 52, house)
    canvas.box(21, 27, 33, 37, house)
    for y in (30, 40, 45):
        canvas.box(20 if y > 37 else 22, y, 34 if y > 37 else 32, y + 2.5, GLASS)
    canvas.box(24, 18, 30, 28, mark := (190, 60, 50))
    canvas.box(24, 20, 30, 22, WHITE)
    for index, x in enumerate((41, 53, 65, 77)):
        canvas.box(x, 43 + index % 2 * 3, x + 11, 51, [mark, (60, 120, 90), (205, 150, 60), (90, 110, 150)][index])
    canvas.line([(60, 44), (60, 22), (72, 36)], (90, 90, 95), 1.2)
    for _ in range(40):
        x, y = canvas.rng.uniform(0, 95), canvas.rng.uniform(74, 98)
        canvas.line([(x, y), (x + canvas.rng.uniform(3, 9), y)], (150, 185, 205), 0.6)
    return canvas.finished()


def car(paint: Colour, seed: int) -> np.ndarray:
    """A saloon on a road."""
    canvas = Canvas((160, 195, 225), (225, 232, 236), seed)
    canvas.ground(58, (95, 95, 98), (150, 150, 150))
    canvas.oval(50, 79, 44, 4, (60, 60, 62))
    dark = (paint[0] * 2 // 3, paint[1] * 2 // 3, paint[2] * 2 // 3)
    canvas.area([(24, 56), (34, 38), (64, 38), (79, 56)], dark)
    canvas.area([(28, 55), (36, 41), (49, 41), (49, 55)], GLASS)
    canvas.area([(52, 55), (52, 41), (63, 41), (73, 55)], GLASS)
    canvas.area([(7, 60), (14, 54), (80, 54), (94, 60), (95, 73), (90, 76), (9, 76), (6, 72)], paint)
    canvas.box(6, 70, 95, 74, dark)
    canvas.line([(50, 56), (50, 74)], dark, 0.8)
    canvas.box(90, 61, 95, 65, (250, 235, 170))
    canvas.box(6, 61, 10, 65, (200, 30, 30))
    for x in (25, 76):
        canvas.oval(x, 75, 9.5, 9.5, TYRE)
        canvas.oval(x, 75, 5, 5, (190, 190, 195))
    return canvas.finished()


def truck(cab: Colour, load: Colour, seed: int) -> np.ndarray:
    """A lorry with a box body on a road."""
    canvas = Canvas((150, 185, 215), (220, 228, 234), seed)
    canvas.ground(66, (88, 88, 90), (140, 138, 134))
    canvas.oval(50, 86, 46, 4, (55, 55, 58))
    canvas.box(5, 24, 63, 72, load)
    for x in range(9, 63, 9):
        canvas.line([(x, 25), (x, 71)], (load[0] * 5 // 6, load[1] * 5 // 6, load[2] * 5 // 6), 0.8)
    canvas.box(5, 71, 92, 77, (60, 60, 64))
    canvas.area([(66, 36), (84, 36), (93, 54), (95, 76), (66, 76)], cab)
    canvas.area([(70, 40), (82, 40), (88, 53), (70, 53)], GLASS)
    canvas.box(90, 64, 95, 69, (250, 235, 170))
    canvas.box(86, 74, 97, 79, (70, 70, 74))
    for x in (17, 32, 80):
        canvas.oval(x, 79, 8.5, 8.5, TYRE)
        canvas.oval(x, 79, 4, 4, (175, 175, 180))
    return canvas.finished()


def bird(feathers: Colour, belly: Colour, back: Colour, seed: int) -> np.ndarray:
    """A small bird on a twig before leaves out of focus."""
    canvas = Canvas(back, (back[0] // 2, back[1] // 2 + 25, back[2] // 2), seed)
    for _ in range(14):
        x, y, r = canvas.rng.uniform(0, 100), canvas.rng.uniform(0, 100), canvas.rng.uniform(6, 14)
        light = canvas.rng.uniform(0.8, 1.25)
        canvas.oval(
            x, y, r, r, (min(255, int(back[0] * light)), min(255, int(back[1] * light)), int(back[2] * light) % 256)
        )
    canvas.image = cv2.GaussianBlur(canvas.image, (0, 0), 14)
    canvas.line([(0, 84), (35, 80), (100, 86)], (90, 66, 45), 3.5)
    dark = (feathers[0] * 2 // 3, feathers[1] * 2 // 3, feathers[2] * 2 // 3)
    canvas.area([(30, 64), (6, 84), (11, 89), (40, 74)], dark)
    canvas.oval(48, 58, 24, 15, feathers, -28)
    canvas.oval(55, 61, 18, 10, belly, -35)
    canvas.oval(66, 36, 12, 11, feathers)
    canvas.area([(76, 33), (90, 38), (76, 41)], (215, 160, 55))
    canvas.oval(69, 34, 1.9, 1.9, BLACK)
    canvas.oval(41, 58, 18, 8, dark, -22)
    canvas.line([(48, 72), (47, 82)], (150, 105, 60), 1.3)
    canvas.line([(54, 71), (55, 82)], (150, 105, 60), 1.3)
    return canvas.finished()


def cat(fur: Colour, wall: Colour, eyes: Colour, seed: int) -> np.ndarray:
    """The head of a cat, from the front."""
    canvas = Canvas(wall, (wall[0] * 3 // 4, wall[1] * 3 // 4, wall[2] * 3 // 4), seed)
    dark = (fur[0] * 2 // 3, fur[1] * 2 // 3, fur[2] * 2 // 3)
    light = (min(255, fur[0] + 45), min(255, fur[1] + 45), min(255, fur[2] + 45))
    canvas.oval(50, 104, 36, 34, fur)
    for side in (-1, 1):
        canvas.area([(50 + side * 31, 42), (50 + side * 30, 8), (50 + side * 8, 26)], fur)
        canvas.area([(50 + side * 27, 34), (50 + side * 27, 15), (50 + side * 14, 26)], (205, 150, 145))
    canvas.oval(50, 48, 33, 28, fur)
    for x in (-9, 0, 9):
        canvas.line([(50 + x, 22), (50 + x * 0.7, 34)], dark, 2.2)
    for side in (-1, 1):
        for y in (50, 57):
            canvas.line([(50 + side * 32, y), (50 + side * 22, y + 1)], dark, 2)
        canvas.oval(50 + side * 13.5, 44, 6.8, 5.6, eyes)
        canvas.oval(50 + side * 13.5, 44, 1.9, 5, BLACK)
        canvas.oval(50 + side * 6, 62, 8.5, 6.5, light)
        for y in (-3, 0, 3):
            canvas.line([(50 + side * 9, 61 + y / 2), (50 + side * 38, 58 + 2 * y)], WHITE, 0.5)
    canvas.area([(45.5, 54), (54.5, 54), (50, 59)], (200, 110, 110))
    canvas.line([(50, 59), (50, 64)], dark, 1)
    return canvas.finished()


SAMPLES: dict[str, Callable[[], np.ndarray]] = {
    "plane1.jpg": lambda: plane((240, 242, 245), (190, 40, 45), 0.12, 1),
    "plane2.jpg": lambda: plane((225, 228, 232), (30, 70, 150), 0.2, 2),
    "ship1.png": lambda: ship((40, 50, 62), (235, 235, 230), (120, 165, 210), 3),
    "ship2.jpg": lambda: ship((25, 70, 110), (245, 240, 225), (150, 180, 205), 4),
    "car1.jpg": lambda: car((195, 30, 35), 5),
    "car2.jpg": lambda: car((35, 80, 165), 6),
    "truck1.jpg": lambda: truck((200, 45, 40), (236, 236, 232), 7),
    "truck2.jpg": lambda: truck((240, 240, 238), (90, 125, 165), 8),
    "bird1.jpg": lambda: bird((120, 95, 75), (205, 180, 150), (110, 150, 85), 9),
    "bird2.jpg": lambda: bird((85, 110, 140), (225, 190, 140), (125, 160, 95), 10),
    "cat1.jpg": lambda: cat((165, 125, 90), (205, 195, 180), (170, 180, 70), 11),
    "cat2.jpg": lambda: cat((120, 118, 115), (190, 175, 165), (200, 160, 60), 12),
}


def main() -> None:
    """Write every sample into the folder given."""
    parser = argparse.ArgumentParser(description=__doc__)
    default = Path(__file__).resolve().parent.parent / "docs" / "samples"
    parser.add_argument("folder", nargs="?", type=Path, default=default)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in SAMPLES.items():
        jpeg = name.endswith(".jpg")
        cv2.imwrite(
            str(folder / name), draw(), [cv2.IMWRITE_JPEG_QUALITY, 88] if jpeg else [cv2.IMWRITE_PNG_COMPRESSION, 9]
        )
        print(folder / name)


if __name__ == "__main__":
    main()
