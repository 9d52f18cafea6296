"""The things that stand in the street: vehicles, people, trees, furniture; their measures, and how they are painted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from semseg.data.demo.canvas import FX, Canvas, Colour, Label, Point, mix
from semseg.data.demo.textures import BLUE, CROWN, INK, METALS, RED, TYRE, WHITE, crowns, foliage

DETAILED = 55.0  # metres; vehicles beyond have no lamps and hubs
FACELESS = 0.5  # whose heading has a larger cosine is seen from behind
KERB = 0.13  # height in metres
FRONTAL: Point = (-0.3, 0.2, -0.9)  # the normal of round things that face the camera


@dataclass(frozen=True)
class Pose:
    """A place on the ground and a heading (0 away from the camera, in radians, clockwise seen from above)."""

    x: float
    z: float
    heading: float = 0.0
    sunlit: float = 1.0
    ground: float = 0.0

    @cached_property
    def axis(self) -> tuple[float, float]:
        """Cosine and sine of the heading."""
        return math.cos(self.heading), math.sin(self.heading)

    def to_world(self, *points: Point) -> list[Point]:
        """Takes points in an object's own metres (right, up, forward) to the world's."""
        c, s = self.axis
        return [(self.x + r * c + f * s, self.ground + up, self.z - r * s + f * c) for r, up, f in points]

    def at(self, right: float, up: float, forward: float = 0.0) -> Point:
        """Takes one point to the world.

        Args:
            right: Metres to the object's right.
            up: Metres above its ground.
            forward: Metres along its heading.
        """
        return self.to_world((right, up, forward))[0]

    def plate(self, x0: float, x1: float, bottom: float, top: float, forward: float = 0.0) -> list[Point]:
        """An upright rectangle across the heading.

        Args:
            x0: Left edge, in the object's metres.
            x1: Right edge.
            bottom: Lower edge.
            top: Upper edge.
            forward: Place along the heading.
        """
        return self.to_world((x0, bottom, forward), (x1, bottom, forward), (x1, top, forward), (x0, top, forward))

    def footprint(self, half: float, rear: float, front: float) -> list[tuple[float, float]]:
        """Corners of a rectangle on the ground, as (x, z).

        Args:
            half: Half the width in metres.
            rear: Metres along the heading at which it begins.
            front: Metres at which it ends.
        """
        return [
            (x, z) for x, _, z in self.to_world((-half, 0, rear), (half, 0, rear), (half, 0, front), (-half, 0, front))
        ]


def upright(x: tuple[float, float], z: tuple[float, float], bottom: float, top: float) -> list[Point]:
    """Corners of an upright rectangle for `Canvas.paste`: left top, right top, right bottom, left bottom.

    Args:
        x: Left and right edge in metres.
        z: Distance of either edge.
        bottom: Height of the lower edge.
        top: Height of the upper edge.
    """
    return [(x[0], top, z[0]), (x[1], top, z[1]), (x[1], bottom, z[1]), (x[0], bottom, z[0])]


@dataclass(frozen=True)
class Body:
    """A vehicle as an extruded side view.

    The profile runs from the rear bumper over the roof to the front bumper: (forward, up, half width, material of the
    panel up to the next point). Patches are painted on both sides: (material, forward and up of each corner).
    """

    label: Label
    wheels: tuple[float, ...]  # forward
    radius: float  # of the wheels
    profile: tuple[tuple[float, float, float, str], ...]
    patches: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]

    @cached_property
    def size(self) -> tuple[float, float, float]:
        """Length, half width and height in metres."""
        return self.profile[-1][0], max(point[2] for point in self.profile), max(point[1] for point in self.profile)

    def half_width_at(self, up: float) -> float:
        """Half the width at a height: the cabin leans inwards.

        Args:
            up: In metres.
        """
        _, width, height = self.size
        roof = min(point[2] for point in self.profile if point[1] > 0.95 * height)
        return width + max(0.0, (up / height - 0.62) / 0.38) * (roof - width) + 0.005


def _band(material: str, first: float, last: float, low: float, high: float) -> tuple:
    """A rectangle on the side of a vehicle."""
    return material, ((first, low), (first, high), (last, high), (last, low))


def _windows(first: float, last: float, count: int, low: float, high: float) -> tuple:
    """A row of equal side windows."""
    step = (last - first) / count
    return tuple(_band("glass", first + (i + 0.04) * step, first + (i + 0.96) * step, low, high) for i in range(count))


# fmt: off
HATCHBACK = Body(Label.CAR, (0.72, 3.2), 0.32,
    ((0.04, 0.2, 0.78, "dark"), (0, 0.36, 0.84, "body"), (0, 0.6, 0.86, "body"), (0.06, 0.92, 0.85, "glass"),
     (0.4, 1.38, 0.68, "body"), (0.8, 1.47, 0.66, "body"), (2.0, 1.47, 0.66, "glass"), (2.95, 0.98, 0.8, "body"),
     (3.75, 0.8, 0.8, "body"), (3.95, 0.55, 0.84, "dark"), (3.9, 0.2, 0.78, "dark")),
    (("glass", ((0.45, 0.98), (0.72, 1.36), (1.45, 1.4), (1.45, 0.98))),
     ("glass", ((1.55, 0.98), (1.55, 1.4), (2.02, 1.4), (2.75, 0.98))), _band("dark", 0.1, 3.9, 0.2, 0.3)))
SEDAN = Body(Label.CAR, (0.85, 3.65), 0.32,
    ((0.04, 0.2, 0.8, "dark"), (0, 0.36, 0.86, "body"), (0, 0.6, 0.88, "body"), (0.05, 0.9, 0.86, "body"),
     (0.75, 0.98, 0.82, "glass"), (1.45, 1.4, 0.66, "body"), (2.5, 1.43, 0.66, "glass"), (3.35, 0.95, 0.82, "body"),
     (4.4, 0.76, 0.8, "body"), (4.55, 0.52, 0.86, "dark"), (4.5, 0.2, 0.8, "dark")),
    (("glass", ((0.95, 0.97), (1.5, 1.33), (1.9, 1.36), (1.9, 0.97))),
     ("glass", ((2.0, 0.97), (2.0, 1.36), (2.5, 1.36), (3.12, 0.97))), _band("dark", 0.1, 4.45, 0.2, 0.3)))
ESTATE = Body(Label.CAR, (0.9, 3.7), 0.36,
    ((0.04, 0.24, 0.82, "dark"), (0, 0.45, 0.88, "body"), (0.05, 1.02, 0.9, "glass"), (0.3, 1.55, 0.74, "body"),
     (0.7, 1.66, 0.72, "body"), (2.5, 1.66, 0.72, "glass"), (3.3, 1.1, 0.86, "body"), (4.4, 0.96, 0.84, "body"),
     (4.6, 0.62, 0.88, "dark"), (4.55, 0.24, 0.82, "dark")),
    (("glass", ((0.35, 1.1), (0.5, 1.5), (1.1, 1.56), (1.1, 1.1))), _band("glass", 1.18, 1.95, 1.1, 1.57),
     ("glass", ((2.05, 1.1), (2.05, 1.58), (2.5, 1.58), (3.1, 1.1))), _band("dark", 0.1, 4.5, 0.24, 0.38)))
VAN = Body(Label.CAR, (0.95, 4.0), 0.36,
    ((0.03, 0.26, 0.88, "dark"), (0, 0.5, 0.94, "body"), (0.02, 1.25, 0.95, "glass"), (0.08, 1.75, 0.88, "body"),
     (0.15, 1.95, 0.86, "body"), (3.6, 1.97, 0.86, "glass"), (4.3, 1.2, 0.92, "body"), (4.9, 1.0, 0.92, "body"),
     (5.0, 0.6, 0.94, "dark"), (4.95, 0.26, 0.88, "dark")),
    (("glass", ((3.0, 1.25), (3.0, 1.8), (3.6, 1.8), (4.1, 1.25))), *_windows(0.4, 2.8, 2, 1.25, 1.75)))
TRUCK = Body(Label.TRUCK, (1.3, 2.3, 6.6), 0.48,
    ((0, 0.4, 1.16, "dark"), (0, 0.95, 1.22, "cargo"), (0, 3.3, 1.22, "cargo"), (5.9, 3.3, 1.22, "cargo"),
     (5.9, 2.75, 1.1, "body"), (7.3, 2.75, 1.1, "glass"), (7.6, 1.65, 1.1, "body"), (7.6, 0.7, 1.14, "dark"),
     (7.6, 0.4, 1.1, "dark")),
    (_band("cargo", 0, 5.8, 0.95, 3.3), _band("dark", 0, 5.9, 0.4, 0.92),
     ("glass", ((6.35, 1.65), (6.35, 2.45), (7.2, 2.45), (7.45, 1.65)))))
BUS = Body(Label.BUS, (2.6, 9.2), 0.48,
    ((0, 0.3, 1.2, "dark"), (0, 0.5, 1.26, "body"), (0, 1.7, 1.26, "glass"), (0.05, 2.5, 1.24, "body"),
     (0.2, 3.05, 1.18, "body"), (11.6, 3.05, 1.18, "body"), (11.85, 2.7, 1.24, "glass"), (11.95, 1.1, 1.26, "body"),
     (12, 0.3, 1.24, "dark")),
    (*_windows(0.3, 11.7, 8, 1.35, 2.5), _band("cargo", 0, 12, 0.55, 0.9)))
TRAM = Body(Label.TRAIN, (), 0.32,
    ((0, 0.12, 1.1, "dark"), (0, 0.5, 1.15, "body"), (0.3, 1.4, 1.18, "glass"), (0.7, 2.9, 1.12, "body"),
     (1.0, 3.3, 1.05, "dark"), (26, 3.3, 1.05, "body"), (26.4, 2.9, 1.12, "glass"), (26.8, 1.4, 1.18, "body"),
     (27, 0.12, 1.1, "dark")),
    (*_windows(1.4, 25.6, 14, 1.4, 2.6), _band("cargo", 0.3, 26.7, 0.35, 1.0), _band("dark", 8.6, 9.1, 0.4, 3.2),
     _band("dark", 17.8, 18.3, 0.4, 3.2)))
CARS = (HATCHBACK, HATCHBACK, SEDAN, SEDAN, ESTATE, ESTATE, VAN)
# fmt: on


def draw_vehicle(canvas: Canvas, body: Body, pose: Pose, colours: dict[str, Colour], lamps: float) -> None:
    """Draws a vehicle in the colours of its materials.

    Args:
        canvas: Where to paint.
        body: Its shape.
        pose: Its rear, where it heads, and the light there.
        colours: RGB by material: `body`, `cargo`, `dark`, `glass`, `rim`.
        lamps: How brightly its lamps shine, 0 to 1.
    """
    width = body.size[1]
    for forward in body.wheels:  # the tyres as seen along the vehicle
        for x0, x1 in ((-0.95 * width, -0.7 * width), (0.7 * width, 0.95 * width)):
            canvas.fill(pose.plate(x0, x1, 0.0, 1.4 * body.radius, forward), TYRE, body.label, pose.sunlit)
    for sign in (-1, 1):
        _draw_side(canvas, body, pose, colours, sign)
    for (f0, u0, w0, material), (f1, u1, w1, _) in pairwise(body.profile):
        # a pane leaves pillars in the colour of the body at its sides
        for name, share in (("body", 1.0), ("glass", 0.9)) if material == "glass" else ((material, 1.0),):
            a, b = w0 * share, w1 * share
            panel = pose.to_world((a, u0, f0), (-a, u0, f0), (-b, u1, f1), (b, u1, f1))
            canvas.fill(panel, colours[name], body.label, pose.sunlit, cull=True)
    if pose.z < DETAILED:
        _draw_end(canvas, body, pose, lamps)


def _draw_side(canvas: Canvas, body: Body, pose: Pose, colours: dict[str, Colour], sign: int) -> None:
    """The side view with windows and wheels, unless it is turned away; `sign` is 1 for the right side."""
    half = body.size[1]
    if sign * (pose.x * pose.axis[0] - pose.z * pose.axis[1]) > -half:
        return
    shapes = [("body", [(sign * width, up, forward) for forward, up, width, _ in body.profile])]
    for material, corners in body.patches:
        shapes.append((material, [(sign * body.half_width_at(up), up, forward) for forward, up in corners]))
    for material, points in shapes:
        canvas.fill(pose.to_world(*points), colours[material], body.label, pose.sunlit)
    for forward in body.wheels if pose.z < DETAILED else ():
        for share, colour in ((1.15, (16, 16, 18)), (1.0, TYRE), (0.62, colours["rim"])):
            rim = _ring(pose, forward, share * body.radius, sign * (half + 0.01), body.radius)
            canvas.fill(rim, colour, body.label, pose.sunlit)


def _draw_end(canvas: Canvas, body: Body, pose: Pose, lamps: float) -> None:
    """Lights and number plate, at the end that is seen."""
    length, width, height = body.size
    rear = pose.axis[0] > 0
    forward, lamp, inner = (-0.02, RED, 0.8) if rear else (length + 0.02, WHITE, 0.62)
    low, high = (0.62, 0.8) if height >= 2 else (0.62, 0.86) if rear else (0.55, 0.72)
    lamp = canvas.shade(lamp, mix(canvas.light((0, 0, -1), pose.sunlit), (1.3, 1.3, 1.3), lamps), pose.z)
    for sign in (-1, 1):
        canvas.fill_unlit(pose.plate(sign * inner * width, sign * 0.94 * width, low, high, forward), lamp, body.label)
    canvas.fill(pose.plate(-0.26, 0.26, 0.42, 0.53, forward), WHITE, body.label, pose.sunlit)
    if not rear:
        canvas.fill(pose.plate(-0.45 * width, 0.45 * width, 0.56, 0.68, forward), INK, body.label, pose.sunlit)


def _ring(pose: Pose, forward: float, radius: float, right: float = 0.0, up: float | None = None) -> list[Point]:
    """A circle in the plane of the heading that touches the ground, or with its centre at `up`."""
    angles = [math.tau * i / 14 for i in range(15)]
    up = radius if up is None else up
    return pose.to_world(*((right, up + radius * math.sin(a), forward + radius * math.cos(a)) for a in angles))


def draw_person(canvas: Canvas, pose: Pose, height: float, colours: Sequence[Colour], stride: float) -> None:
    """Draws legs, coat, arms, head and hair.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        height: In metres.
        colours: Of trousers, coat, skin and hair.
        stride: Metres that a foot is ahead of the body.
    """
    trousers, coat, skin, hair = colours
    k = height / 1.75

    def limb(width, colour, *points):
        scaled = pose.to_world(*((x * k, y * k, z * k) for x, y, z in points))
        canvas.line(scaled, width * k, colour, Label.PERSON, pose.sunlit)

    for sign in (-1, 1):
        leg, arm, foot = 0.09 * sign, 0.27 * sign, sign * stride
        limb(0.15, trousers, (leg, 0.86, 0), (leg, 0.46, 0.5 * foot + 0.05), (leg, 0.06, foot))
        limb(0.1, INK, (leg, 0.04, foot), (leg, 0.04, foot + 0.16))
        limb(0.1, coat, (0.21 * sign, 1.4, 0), (arm, 1.12, -0.3 * foot), (arm, 0.87, -0.8 * foot))
        limb(0.09, skin, (arm, 0.87, -0.8 * foot), (arm, 0.82, -0.85 * foot))
    outline = ((0.18, 0.8), (0.17, 1.1), (0.23, 1.4), (0.1, 1.5))
    torso = [(x * k, y * k, 0) for x, y in (*outline, *((-x, y) for x, y in reversed(outline)))]
    canvas.fill_unlit(
        pose.to_world(*torso), canvas.shade(coat, canvas.light(FRONTAL, pose.sunlit), pose.z), Label.PERSON
    )
    limb(0.12, skin, (0, 1.45, 0), (0, 1.56, 0))
    _draw_head(canvas, pose, Label.PERSON, (1.64 * k, 0, 0.115 * k, hair), (1.61 * k, 0, 0.085 * k, skin))


def _draw_head(canvas: Canvas, pose: Pose, label: Label, hair: tuple, face: tuple) -> None:
    """Hair or helmet and, unless it looks away, a face: up, forward, radius and colour of either."""
    for up, forward, radius, colour in (hair, face) if pose.axis[0] < FACELESS else (hair,):
        canvas.disc(pose.at(0, up, forward), radius, colour, label, canvas.light(FRONTAL, pose.sunlit))


def draw_bicycle(canvas: Canvas, pose: Pose, colours: Sequence[Colour], ridden: bool) -> None:
    """Draws two thin wheels and a frame.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        colours: Of the rider's trousers, coat, skin and helmet; the frame has the helmet's.
        ridden: Whether somebody sits on it.
    """
    label, hub, pedals, saddle, bar = Label.BICYCLE, (0, 0.34, -0.52), (0, 0.3, -0.1), (0, 0.85, -0.2), (0, 0.82, 0.38)
    for forward in (-0.52, 0.52):
        canvas.line(_ring(pose, forward, 0.34), 0.05, (34, 34, 36), label, pose.sunlit)
    canvas.line(pose.to_world(hub, pedals, saddle, bar, pedals, saddle, hub), 0.05, colours[3], label, pose.sunlit)
    canvas.line(pose.to_world((0, 0.34, 0.52), bar, (0, 1.0, 0.34)), 0.05, colours[3], label)
    canvas.line(pose.to_world((-0.25, 1.02, 0.34), (0.25, 1.02, 0.34)), 0.045, INK, label)
    canvas.line(pose.to_world((-0.06, 0.93, -0.24), (0.06, 0.93, -0.1)), 0.1, INK, label)
    if ridden:
        _draw_rider(canvas, pose, colours, (0.95, -0.2), (1.04, 0.34), (0.34, -0.02))


def draw_motorcycle(canvas: Canvas, pose: Pose, colours: Sequence[Colour], ridden: bool) -> None:
    """Draws two broad wheels, a tank, a lamp and a bar.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        colours: As for `draw_bicycle`.
        ridden: Whether somebody sits on it.
    """
    label = Label.MOTORCYCLE
    for forward in (-0.65, 0.68):
        canvas.line(_ring(pose, forward, 0.28), 0.14, TYRE, label, pose.sunlit)
    shell = ((0.72, -0.85), (0.84, -0.5), (0.78, 0.0), (1.0, 0.4), (0.7, 0.62), (0.3, 0.3), (0.3, -0.35))
    for side in (-0.14, 0.14):
        canvas.fill(pose.to_world(*((side, *corner) for corner in shell)), colours[3], label, pose.sunlit)
    forward, lamp = (-0.85, RED) if pose.axis[0] > 0 else (0.6, WHITE)
    canvas.fill(pose.plate(-0.15, 0.15, 0.45, 0.86, forward), INK, label, pose.sunlit)
    canvas.disc(pose.at(0, 0.76, forward), 0.07, lamp, label)
    canvas.line(pose.to_world((-0.36, 1.06, 0.42), (0.36, 1.06, 0.42)), 0.06, INK, label)
    if ridden:
        _draw_rider(canvas, pose, colours, (0.82, -0.25), (1.06, 0.38), (0.32, 0.05))


def _draw_rider(canvas: Canvas, pose: Pose, colours: Sequence[Colour], *joints: tuple[float, float]) -> None:
    """A seated rider; hips, hands and feet are given as (up, forward)."""
    (trousers, coat, skin, helmet), label = colours, Label.RIDER
    (hip, seat), (hand, bar), (foot, pedal) = joints
    for sign in (-1, 1):
        knee, ankle = (0.2 * sign, 0.64 + 0.12 * sign, seat + 0.42), (0.13 * sign, foot + 0.14 * sign, pedal)
        canvas.line(pose.to_world((0.1 * sign, hip, seat), knee, ankle), 0.13, trousers, label, pose.sunlit)
        elbow, wrist = (0.3 * sign, hip + 0.22, bar - 0.2), (0.25 * sign, hand, bar)
        canvas.line(pose.to_world((0.2 * sign, hip + 0.5, seat + 0.2), elbow, wrist), 0.1, coat, label, pose.sunlit)
    for x in (-0.12, 0.0, 0.12):
        canvas.line(
            pose.to_world((x, hip + 0.02, seat), (1.2 * x, hip + 0.5, seat + 0.2)), 0.18, coat, label, pose.sunlit
        )
    _draw_head(canvas, pose, label, (hip + 0.76, seat + 0.26, 0.125, helmet), (hip + 0.72, seat + 0.28, 0.08, skin))


def draw_tree(canvas: Canvas, pose: Pose, size: tuple[float, float, float], colour: Colour, kind: int) -> None:
    """Draws a trunk with two boughs and a crown.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        size: Height of the trunk, width and height of the crown, in metres.
        colour: RGB of the leaves.
        kind: Which of the 16 crowns.
    """
    trunk, width, height = size
    bark, label, bottom = (86, 74, 62), Label.VEGETATION, pose.ground + trunk
    x = (pose.x - width / 2, pose.x + width / 2)
    corners = upright(x, (pose.z, pose.z), bottom - 0.12 * height, bottom + height)
    if not canvas.camera.sees(corners):
        return
    canvas.line(
        pose.to_world((0, 0, 0), (0.03, trunk + 0.25 * height, 0)), 0.03 * width + 0.08, bark, label, pose.sunlit
    )
    for sign in (-1, 1):
        canvas.line(pose.to_world((0, trunk, 0), (0.22 * width * sign, trunk + 0.3 * height, 0)), 0.12, bark, label)
    light = foliage(canvas.light((0.0, 0.5, -0.5), 0.35 + 0.65 * pose.sunlit), colour, 1.15)
    halvings = min(3, max(0, int(math.log2(0.7 * CROWN * pose.z / (FX * width)))))
    canvas.paste(crowns(halvings)[kind % 8][:, :: 1 if kind < 8 else -1], corners, label, light)


def draw_pole(canvas: Canvas, pose: Pose, height: float, width: float, colour: Colour, arm: float = 0.0) -> None:
    """Draws a post, with or without a lamp.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        height: In metres.
        width: In metres.
        colour: RGB, 0 to 255.
        arm: Metres that a lamp reaches to the right, over the road; 0 for none.
    """
    for top, thickness in ((height, width), (0.5, 1.7 * width)):
        canvas.line(pose.to_world((0, 0, 0), (0, top, 0)), thickness, colour, Label.POLE, pose.sunlit)
    if arm:
        bough = pose.to_world((0, height, 0), (0.5 * arm, height + 0.35, 0), (arm, height + 0.4, 0))
        canvas.line(bough, 0.09, colour, Label.POLE)
        canvas.line(pose.to_world((0.7 * arm, height + 0.38, 0), (1.1 * arm, height + 0.38, 0)), 0.2, WHITE, Label.POLE)


def draw_traffic_light(canvas: Canvas, pose: Pose, state: int, reach: float) -> None:
    """Draws a signal on a post.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        state: Which lamp shines: 0 green, 1 amber, 2 red.
        reach: Metres to the right of a second signal over the road; 0 for none.
    """
    colour, height, end = (70, 74, 76), *((5.4, 5.5) if reach else (3.4, 3.4))
    draw_pole(canvas, pose, height, 0.13, colour)
    canvas.line(pose.to_world((0, height, 0), (reach, end, 0)), 0.1, colour, Label.POLE)
    for x, y in ((0.0, 2.5), (reach, 4.8)) if reach else ((0.0, 2.5),):
        canvas.fill(pose.plate(x - 0.17, x + 0.17, y, y + 0.98, -0.1), (30, 32, 34), Label.TRAFFIC_LIGHT)
        for place, lamp in enumerate(((40, 220, 120), (250, 190, 40), (240, 40, 36))):
            shown, glow = (lamp, (1.1, 1.1, 1.1)) if place == state else (mix(lamp, INK, 0.85), None)
            canvas.disc(pose.at(x, y + 0.18 + 0.31 * place, -0.15), 0.12, shown, Label.TRAFFIC_LIGHT, glow)


def _oblong(colour: Colour, half: float, low: float, high: float) -> tuple:
    """A shape on a sign: its colour and its corners as (right, up)."""
    return colour, ((-half, low), (half, low), (half, high), (-half, high))


def _board(colour: Colour, ink: Colour) -> tuple:
    """A board with a direction, in two lines."""
    lines = (_oblong(ink, 0.45, low, low + 0.09) for low in (-0.12, 0.14))
    return (), (_oblong(colour, 0.62, -0.24, 0.36), *lines)


# fmt: off
BAN = ((RED, 0.34, -0.05), (WHITE, 0.25, -0.06)), (_oblong(INK, 0.16, -0.05, 0.05),)
ORDER = ((BLUE, 0.34, -0.05), (BLUE, 0.25, -0.06)), (_oblong(WHITE, 0.16, -0.05, 0.05),)
WARNING = (), [(c, ((-0.42 * k, -0.3 * k), (0.42 * k, -0.3 * k), (0, 0.42 * k))) for c, k in ((RED, 1.0), (WHITE, 0.6))]
NOTICE = (), (_oblong(BLUE, 0.32, -0.32, 0.32), _oblong(WHITE, 0.14, -0.22, 0.24))
SIGNS = (  # discs (colour, radius, forward) and shapes, by how often they occur
    BAN, BAN, BAN, ORDER, ORDER, WARNING, WARNING, NOTICE, NOTICE, _board((36, 96, 60), WHITE),
    _board((214, 176, 40), INK), _board((40, 80, 150), WHITE), _board((230, 230, 226), INK),
)
# fmt: on


def draw_sign(canvas: Canvas, pose: Pose, sign: tuple, height: float) -> None:
    """Draws a sign on a thin post.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        sign: One of `SIGNS`.
        height: Of the post in metres.
    """
    draw_pole(canvas, pose, height, 0.075, METALS[2])
    discs, shapes = sign
    for colour, radius, forward in discs:
        canvas.disc(pose.at(0, height - 0.1, forward), radius, colour, Label.TRAFFIC_SIGN)
    for colour, corners in shapes:
        canvas.fill(pose.to_world(*((x, height - 0.1 + up, -0.05) for x, up in corners)), colour, Label.TRAFFIC_SIGN)


def draw_box(canvas: Canvas, pose: Pose, size: tuple[float, float, float], colour: Colour) -> None:
    """Draws a bin or a switch box, which Cityscapes leaves void.

    Args:
        canvas: Where to paint.
        pose: Where the thing stands, where it heads, and the light there.
        size: (width, height, depth) in metres.
        colour: RGB, 0 to 255.
    """
    width, height, depth = size
    for x in (-width / 2, width / 2):
        side = pose.to_world((x, 0, 0), (x, 0, depth), (x, height, depth), (x, height, 0))
        canvas.fill(side, colour, Label.VOID, pose.sunlit)
    canvas.fill(pose.plate(-width / 2, width / 2, 0, height), colour, Label.VOID, pose.sunlit)
    canvas.fill(pose.plate(-0.55 * width, 0.55 * width, 0.9 * height, height), mix(colour, INK, 0.4), Label.VOID)


def draw_fence(canvas: Canvas, x: float, z: tuple[float, float], height: float, colour: Colour) -> None:
    """Draws rails, posts and bars; as in Cityscapes, the labels have no holes between them.

    Args:
        canvas: Where to paint.
        x: Metres to the right.
        z: Where it begins and ends, in metres forward.
        height: In metres.
        colour: RGB, 0 to 255.
    """
    start, place = max(z[0], 4.0), z[1]
    canvas.fill_unlit(upright((x, x), (start, z[1]), KERB, height), None, Label.FENCE)
    while place > start:
        width = 0.1 if int(place * 4) % 8 == 0 else 0.035
        canvas.line([(x, KERB, place), (x, height, place)], width, colour, Label.FENCE)
        place -= max(0.22, 0.012 * place)
    for up in (0.15 * height, 0.92 * height):
        for a, b in pairwise(np.geomspace(start, z[1], 4).tolist()):
            canvas.line([(x, up, b), (x, up, a)], 0.06, colour, Label.FENCE)
