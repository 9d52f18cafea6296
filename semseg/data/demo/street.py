"""What stands where: a street with its plots, traffic and people, planned in metres and painted from back to front."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np

from semseg.data.demo import objects, textures
from semseg.data.demo.canvas import FAR, FX, HALF, LOW, NEAR, SIDE, Camera, Canvas, Colour, Label, Rng, Weather, mix
from semseg.data.demo.objects import CARS, KERB, Body, Pose, upright
from semseg.data.demo.textures import Style, facade, foliage, hedge, pick, tone, vary, wall

LANE, PARKING = 3.3, 2.2  # widths in metres
CENTRE = -1.75  # x of the line between our lane and the next; we drive at x = 0
GREY = (60, 60, 60)

# fmt: off
WEATHERS = (  # sunny, fair, overcast, dusk, mist
    Weather((70, 125, 200), (185, 210, 230), (0.52, 0.55, 0.62), (0.95, 0.88, 0.74), (0.6, 1.1), 420, 0.35),
    Weather((105, 150, 205), (215, 222, 225), (0.56, 0.58, 0.62), (0.75, 0.70, 0.60), (0.4, 0.8), 300, 0.65),
    Weather((190, 196, 202), (222, 225, 226), (0.86, 0.88, 0.90), (0.06, 0.06, 0.06), (0.8, 1.0), 220, 0.9),
    Weather((80, 92, 140), (242, 176, 118), (0.50, 0.46, 0.50), (0.55, 0.36, 0.20), (0.25, 0.4), 260, 0.5, 0.5),
    Weather((188, 192, 194), (206, 208, 208), (0.80, 0.81, 0.82), (0.04, 0.04, 0.04), (0.8, 1.0), 65, 0.1, 0.15),
)
# fmt: on
WEATHER_ODDS = (0.34, 0.52, 0.76, 0.89, 1.0)  # cumulative

Span = tuple[float, float]  # from, to in metres


@dataclass(frozen=True)
class Side:
    """One side of the street; `out` is the direction away from the road: -1 on the left, 1 on the right."""

    out: int
    edge: float  # x of the kerb
    walk: float  # width of the sidewalk
    verge: float  # width of the grass between sidewalk and plots
    parking: bool

    @property
    def plots(self) -> float:
        """The x at which the plots begin."""
        return self.edge + self.out * (self.walk + self.verge)


class Scene:
    """A street being planned: its layout in metres, and what stands in it, to be painted later.

    Attributes:
        sides: Left and right.
        edges: x of the left and the right kerb.
        lanes: All but the tram's.
        crossing: z at which a side street begins and ends.
        density: 0 open country, 1 city.
        items: Distance, draw function and its arguments.
    """

    def __init__(self, rng: Rng):
        self.rng = rng
        weather = WEATHERS[int(np.searchsorted(WEATHER_ODDS, rng.random()))]
        bend, hill = rng.normal(0, 0.002) * (rng.random() < 0.6), rng.uniform(-0.00004, 0.00025)
        camera = Camera(rng.uniform(1.3, 1.65), rng.uniform(195, 235), HALF + rng.uniform(-30, 30), bend, hill)
        elevation, azimuth = rng.uniform(*weather.elevation), rng.uniform(0, math.tau)
        level = math.cos(elevation)
        sun = (level * math.sin(azimuth), math.sin(elevation), level * math.cos(azimuth))
        self.canvas = Canvas(camera, weather, sun)
        self.lanes, parking = pick(rng, (1, 2, 2, 3)), (rng.random() < 0.6, rng.random() < 0.5)
        self.tram, self.density = rng.random() < 0.16, pick(rng, (0.1, 0.35, 0.6, 0.8, 1.0))
        left = -1.9 - LANE * (self.lanes - 1 + self.tram) - PARKING * parking[0]
        self.edges = left, 1.75 + PARKING * parking[1] + LANE * (rng.random() < 0.1)
        start = rng.uniform(14, 50) if rng.random() < 0.5 else 2 * FAR
        walks = rng.uniform(2.2, 5.0, 2).tolist()
        verges = [rng.uniform(1.2, 4.5) * (rng.random() < 0.9 - 0.55 * self.density) for _ in walks]
        self.sides = tuple(map(Side, (-1, 1), self.edges, walks, verges, parking))
        self.crossing = (start, start + rng.uniform(7, 11))
        self.items: list[tuple[float, Callable, tuple]] = []

    def add(self, depth: float, draw: Callable, *args) -> None:
        """Remembers to call `draw(canvas, *args)`; the farthest first.

        Args:
            depth: Distance in metres, by which things are painted.
            draw: Is called with the canvas and `args`.
            *args: What `draw` needs.
        """
        self.items.append((depth, draw, args))

    def pose(self, x: float, z: float, heading: float = 0.0) -> Pose:
        """A place on the ground, on the kerb's height beside the road, with the light that falls there.

        Args:
            x: Metres to the right.
            z: Metres forward.
            heading: Radians clockwise, 0 away from the camera.
        """
        ground = 0.0 if self.edges[0] < x < self.edges[1] else KERB
        return Pose(x, z, heading, self.canvas.sunlit(x, z), ground)

    def free(self, z: float, margin: float = 1.0) -> bool:
        """Whether no side street opens at this distance.

        Args:
            z: Metres forward.
            margin: Metres that have to be free before and behind.
        """
        return not self.crossing[0] - margin < z < self.crossing[1] + margin

    def spans(self, before: float = 0.0, after: float = 0.0) -> tuple[Span, Span]:
        """The stretches of the street before and after the side street.

        Args:
            before: Metres left out before the side street.
            after: Metres left out behind it.
        """
        return (NEAR, self.crossing[0] - before), (self.crossing[1] + after, FAR)

    def strip(self, x: Span, z: Span, colour: Colour, label: Label = Label.ROAD, up: Span = (0, 0)) -> None:
        """Paints a band of ground along the street, unlit: light is added to all of the ground at once.

        Args:
            x: Left and right edge in metres.
            z: Near and far end in metres.
            colour: RGB, 0 to 255.
            label: The class of the pixels.
            up: Heights of the left and the right edge in metres.
        """
        near, far = max(z[0], NEAR), min(z[1], FAR)
        if near >= far:
            return
        count = 1 if far < 1.3 * near else 8
        stops = [near * (far / near) ** (i / count) for i in range(count + 1)]
        points = [(x[0], up[0], stop) for stop in stops] + [(x[1], up[1], stop) for stop in reversed(stops)]
        self.canvas.fill_unlit(points, tuple(map(int, colour)), label)


def paint_street(scene: Scene) -> None:
    """Fills the street, and paints it on the scene's canvas.

    Args:
        scene: The street.
    """
    scene.canvas.paint_sky(scene.rng)
    _paint_ground(scene)
    _plan_backdrop(scene)
    for plan, side in product((_plan_side, _plan_furniture, _plan_parking), scene.sides):
        plan(scene, side)
    _plan_traffic(scene)
    _plan_people(scene)
    scene.canvas.light_ground()
    for _, draw, args in sorted(scene.items, key=lambda item: -item[0]):
        draw(scene.canvas, *args)
    if scene.rng.random() < 0.92:
        _paint_bonnet(scene)


def _paint_ground(scene: Scene) -> None:
    """Road, kerbs, sidewalks and grass."""
    rng, strip, whole, raised = scene.rng, scene.strip, (NEAR, FAR), (KERB, KERB)
    surfaces = textures.ASPHALTS, textures.PAVINGS, textures.GRASSES
    asphalt, paving, grass = (tone(rng, surface, 0.1) for surface in surfaces)
    land = (paving, Label.SIDEWALK) if scene.density > 0.7 else (grass, Label.TERRAIN)
    strip((-400, 400), whole, *land, raised)
    for side in scene.sides:
        border, joint = side.edge + side.out * side.walk, mix(paving, GREY, 0.25)
        if side.verge:
            strip((border, border + side.out * side.verge), whole, grass, Label.TERRAIN, raised)
        strip((side.edge, border), whole, paving, Label.SIDEWALK, raised)
        for z in np.geomspace(3, 34, 30).tolist():
            strip((side.edge, border), (z, z + 0.03 + 0.001 * z), joint, Label.SIDEWALK, raised)
        for x in np.linspace(side.edge, border, 5)[1:-1].tolist():
            strip((x - 0.02, x + 0.02), (NEAR, 26), joint, Label.SIDEWALK, raised)
    strip((-400, 400), scene.crossing, asphalt)
    strip(scene.edges, whole, asphalt)
    for side, z in product(scene.sides, scene.spans()):
        edge, out = side.edge, side.out
        strip((edge - out * 0.3, edge), z, mix(asphalt, GREY, 0.35))
        strip((edge, edge), z, mix(paving, GREY, 0.3), Label.SIDEWALK, (0, KERB))
        strip((edge, edge + out * 0.16), z, mix(paving, (215, 213, 208), 0.5), Label.SIDEWALK, raised)
    _paint_patches(scene, asphalt)
    _paint_marks(scene, vary(rng, (205, 205, 200), 0.12))


def _paint_patches(scene: Scene, asphalt: Colour) -> None:
    """Repairs and manhole covers in the road."""
    rng, (left, right) = scene.rng, scene.edges
    for _ in range(int(rng.integers(2, 7))):
        x, z = rng.uniform(left, right - 1), rng.uniform(4, 40)
        width, length = rng.uniform(0.5, 2), rng.uniform(1, 9)
        scene.strip((x, min(right, x + width)), (z, z + length), vary(rng, asphalt, 0.14))
    for _ in range(int(rng.integers(0, 4))):
        x, z = rng.uniform(left + 0.5, right - 0.5), rng.uniform(5, 25)
        cover = [(x + 0.35 * math.cos(a), 0.0, z + 0.35 * math.sin(a)) for a in range(7)]
        scene.canvas.fill_unlit(cover, tuple(int(0.6 * c) for c in asphalt), Label.ROAD)


def _paint_marks(scene: Scene, paint: Colour) -> None:
    """Lane marks, lines along parked cars, a zebra crossing and a stop line, tram rails."""
    rng, (left, right) = scene.rng, scene.edges
    for lane in range(scene.lanes):
        _paint_lane_mark(scene, CENTRE - LANE * lane, paint)
    for side in scene.sides:
        x = side.edge - side.out * (PARKING * side.parking + 0.15)
        if rng.random() < 0.5:
            scene.strip((x - 0.06, x + 0.06), (NEAR, scene.crossing[0] - 5), paint)
    z = scene.crossing[0] - 4
    if rng.random() < 0.7 and z < FAR:
        for x in np.arange(left + 0.4, right - 0.4, 1.0).tolist():
            scene.strip((x, x + 0.5), (z, z + 3), paint)
    scene.strip((-1.6, right - PARKING * scene.sides[1].parking - 0.2), (z - 1.3, z - 0.9), paint)
    if scene.tram:
        _paint_rails(scene, CENTRE - LANE * scene.lanes)


def _paint_lane_mark(scene: Scene, x: float, paint: Colour) -> None:
    """A line between two lanes, mostly dashed, with a gap at the side street."""
    rng = scene.rng
    dashes = np.arange(rng.uniform(0, 6), 90, 7.5).tolist() if rng.random() < 0.8 else []
    for near, far in scene.spans(5.5, 1.0):
        if not dashes:
            scene.strip((x - 0.07, x + 0.07), (near, far), paint)
        for z in dashes:
            if near <= z < far:
                scene.strip((x - 0.07, x + 0.07), (z, min(far, z + 3.5)), paint)


def _paint_rails(scene: Scene, x: float) -> None:
    """Two rails in their grooves, to the right of x."""
    for rail in (0.9, 2.34):
        middle = x + rail
        scene.strip((middle - 0.07, middle + 0.07), (NEAR, FAR), (66, 62, 60))
        scene.strip((middle - 0.03, middle + 0.04), (NEAR, FAR), (176, 178, 182))


def _paint_bonnet(scene: Scene) -> None:
    """The bonnet of the car that carries the camera, which is void."""
    rng, canvas = scene.rng, scene.canvas
    rise, tilt, columns = rng.uniform(30, 56), rng.uniform(-6, 6), np.linspace(-20, SIDE + 20, 24)
    paint = canvas.shade(pick(rng, textures.PAINTS[:6]), canvas.light((0, 0.9, -0.3)), 0)
    across = columns / HALF - 1
    for step, share in enumerate((0.55, 0.8, 0.74, 0.7)):
        rows = SIDE - rise + 7 * step + tilt * across + 0.75 * rise * np.abs(across) ** 2.4
        outline = [*np.stack([columns, rows], -1).tolist(), (SIDE + 20, SIDE + 20), (-20, SIDE + 20)]
        polygon = np.array([outline], np.int32)
        cv2.fillPoly(canvas.photo, polygon, [int(share * c) for c in paint])
        cv2.fillPoly(canvas.labels, polygon, int(Label.VOID))


def _plan_backdrop(scene: Scene) -> None:
    """What closes the view at the end of the street: houses and trees, or a building across it."""
    rng, weather = scene.rng, scene.canvas.weather
    style = Style(rng, weather)
    bushes = upright((-80, 80), (FAR, FAR), -1, rng.uniform(3, 6))
    green = foliage(scene.canvas.light((0, 0, -1)), pick(rng, textures.LEAVES), 0.7)
    scene.add(FAR + 2, Canvas.paste, hedge(), bushes, Label.VEGETATION, green)
    for x in np.arange(-64, 64, 8.0).tolist():
        if rng.random() < 0.2 + 0.3 * scene.density:
            _plan_front(scene, (x, x + 12), FAR, rng.uniform(6, 10 + 12 * scene.density), style)
        else:
            _plan_tree(scene, x, FAR - rng.uniform(0, 20), big=True)
    if rng.random() < 0.35:
        _plan_front(scene, (-24, 24), rng.uniform(60, 110), rng.uniform(7, 20), Style(rng, weather))


def _plan_front(scene: Scene, x: Span, z: float, height: float, style: Style) -> None:
    """A front that faces the camera."""
    corners = upright((min(x), max(x)), (z, z), KERB, height)
    if scene.canvas.camera.sees(corners):
        scale = min(24.0, max(4.0, 600 / z))
        image = facade(scene.rng, style, (abs(x[1] - x[0]), height), (scale, scale))
        scene.add(z + 0.2, Canvas.paste, image, corners, Label.BUILDING, scene.canvas.light((0, 0, -1)))


def _plan_side(scene: Scene, side: Side) -> None:
    """Plot after plot along one side of the street."""
    rng, z, x = scene.rng, 3.0, side.plots
    while z < 105:
        if scene.crossing[0] - 5 < z < scene.crossing[1]:
            z = scene.crossing[1] + 0.5
        end = z + rng.uniform(8, 20)
        if z < scene.crossing[0]:
            end = min(end, scene.crossing[0])
        chance = rng.random() - scene.density * 0.85
        if chance < 0:
            _plan_house(scene, side, (x, x + side.out * 11), (z, end), rng.uniform(7, 19))
        elif chance < 0.5 * (1 - scene.density):
            _plan_garden(scene, side, (z, end))
        else:
            _plan_park(scene, side, (z, end))
        z = end


def _plan_house(scene: Scene, side: Side, x: Span, z: Span, height: float) -> None:
    """A building whose front lies along the street and whose side faces the camera, with a roof or without."""
    rng, canvas, (x0, x1), (z0, z1) = scene.rng, scene.canvas, x, z
    style = Style(rng, canvas.weather)
    corners = upright((x0, x0), z, KERB, height)
    if canvas.camera.sees(corners):
        nearest = max(z0, min(z1 - 1, FX * abs(x0) / HALF))
        up = min(26.0, max(4.0, 700 / nearest))
        across = min(up, max(2.0, 2 * FX * abs(x0) / nearest / z1))  # it is seen at a flat angle
        image = facade(rng, style, (z1 - z0, height), (across, up))
        scene.add(z1, Canvas.paste, image, corners, Label.BUILDING, canvas.light((-side.out, 0, 0)))
    _plan_front(scene, x, z0, height, style)
    if rng.random() < 0.55:
        middle, ridge = (x0 + x1) / 2, height + 0.35 * abs(x1 - x0)
        roof = [(x0, height, z0), (x0, height, z1), (middle, ridge, z1), (middle, ridge, z0)]
        scene.add(z1 + 0.1, Canvas.fill, roof, tone(rng, textures.ROOFS), Label.BUILDING)
        gable = [(x0, height, z0), (middle, ridge, z0), (x1, height, z0)]
        scene.add(z0 + 0.1, Canvas.fill, gable, style.wall, Label.BUILDING)
    canvas.shadow(list(product(x, z)), height)


def _plan_barrier(scene: Scene, side: Side, z: Span) -> None:
    """A wall, a fence or a hedge along the sidewalk."""
    rng, canvas, x, kind = scene.rng, scene.canvas, side.plots, scene.rng.random()
    light = canvas.light((-side.out, 0.0, 0))
    height = rng.uniform(1.4, 3.4) if kind < 0.35 else rng.uniform(1.0, 1.9)
    corners = upright((x, x), z, KERB, height)
    if kind < 0.35:
        scene.add(z[1], Canvas.paste, wall(rng, z[1] - z[0], height), corners, Label.WALL, light)
    elif kind < 0.7:
        scene.add(z[1], objects.draw_fence, x, z, height, tone(rng, textures.FENCES))
    else:
        green = foliage(light, pick(rng, textures.LEAVES), 1.2)
        scene.add(z[1], Canvas.paste, hedge(), corners, Label.VEGETATION, green)
    canvas.shadow(list(product((x, x + side.out * 0.4), z)), height)


def _plan_garden(scene: Scene, side: Side, z: Span) -> None:
    """A house behind a barrier, with trees."""
    rng, out, (start, end) = scene.rng, side.out, z
    _plan_barrier(scene, side, z)
    front = side.plots + out * rng.uniform(3, 6)
    _plan_house(scene, side, (front, front + out * 8), (start + 1.5, end - 1.5), rng.uniform(4, 7.5))
    for place in (start + 1, end - 1):
        if rng.random() < 0.6:
            _plan_tree(scene, side.plots + out * rng.uniform(1.2, 3), place, big=rng.random() < 0.3)


def _plan_park(scene: Scene, side: Side, z: Span) -> None:
    """Trees on grass, sometimes behind a barrier."""
    rng = scene.rng
    if rng.random() < 0.6:
        _plan_barrier(scene, side, z)
    for _ in range(int(rng.integers(3, 6))):
        x = side.plots + side.out * rng.uniform(1.5, 12)
        _plan_tree(scene, x, rng.uniform(z[0] + 1, z[1]), big=rng.random() < 0.65)


def _plan_tree(scene: Scene, x: float, z: float, big: bool) -> None:
    rng, grow = scene.rng, 1.0 if big else 0.5
    trunk, width, height = (rng.uniform(a, b) * grow for a, b in ((2.2, 3.8), (5, 8.5), (5.5, 9.5)))
    colour, kind = tone(rng, textures.LEAVES), int(rng.integers(16))
    scene.add(z, objects.draw_tree, scene.pose(x, z), (trunk, width, height), colour, kind)
    crown = [(x + 0.4 * width * math.cos(a), z + 0.4 * width * math.sin(a)) for a in range(7)]
    scene.canvas.shadow(crown, trunk + 0.4 * height, touching=False)
    scene.canvas.shadow([(x - 0.12, z), (x + 0.12, z)], trunk)


def _plan_vehicle(scene: Scene, body: Body, x: float, z: float, heading: float = 0.0) -> None:
    """A vehicle whose rear is at (x, z), or whose front is when it comes towards us."""
    rng, weather, pose = scene.rng, scene.canvas.weather, scene.pose(x, z, heading)
    length, half_width, height = body.size
    if heading == math.pi:
        pose = replace(pose, z=z + length)
    paints = textures.LIVERIES if body.label in (Label.BUS, Label.TRAIN) else textures.PAINTS
    colours = {"body": tone(rng, paints), "cargo": tone(rng, textures.WALLS + textures.PAINTS), "dark": (34, 35, 38)}
    colours |= {"rim": pick(rng, textures.RIMS), "glass": mix((26, 30, 34), weather.horizon, rng.uniform(0.05, 0.3))}
    scene.add(z, objects.draw_vehicle, body, pose, colours, min(1.0, weather.lamps + 0.15))
    scene.canvas.shadow(pose.footprint(half_width + 0.04, -0.05, length + 0.05), 0.8 * min(height, LOW))


def _plan_parking(scene: Scene, side: Side) -> None:
    """A row of parked cars with gaps, on our side seen from behind, on the other mostly from the front."""
    rng, z, full = scene.rng, scene.rng.uniform(4, 9), scene.rng.uniform(0.4, 0.95)
    x = side.edge - side.out * (PARKING / 2 - 0.05)
    while side.parking and z < 85:
        if rng.random() < full and scene.free(z, 9):
            heading = math.pi if side.out < 0 and rng.random() < 0.9 else 0.0
            _plan_vehicle(scene, pick(rng, CARS), x + rng.normal(0, 0.08), z, heading)
        z += rng.uniform(5.6, 6.8)


def _plan_traffic(scene: Scene) -> None:
    """What drives: ahead in our lane, towards us in the others, across at the side street, a tram on its rails."""
    rng = scene.rng
    for lane in range(scene.lanes):
        _plan_lane(scene, lane)
    if scene.tram and rng.random() < 0.8:
        _plan_vehicle(scene, objects.TRAM, CENTRE - LANE * scene.lanes + 1.62, rng.uniform(12, 40), math.pi)
    if scene.crossing[0] < 60 and rng.random() < 0.4:
        _plan_vehicle(scene, _moving_vehicle(rng), rng.uniform(-20, -4), sum(scene.crossing) / 2 - 1.6, math.pi / 2)


def _plan_lane(scene: Scene, lane: int) -> None:
    """The traffic of one lane: 0 is ours, the last one beside it comes towards us."""
    rng = scene.rng
    z = rng.uniform(9, 45)
    x = CENTRE - LANE * (lane - 0.5) if lane else 0.0
    heading = math.pi if 0 < lane == scene.lanes - 1 else 0.0
    while z < 100 and rng.random() < 0.75:
        _plan_vehicle(scene, _moving_vehicle(rng), x + rng.normal(0, 0.15), z, heading)
        z += rng.uniform(15, 40)


def _moving_vehicle(rng: Rng) -> Body:
    """A vehicle that drives: now and then a truck or a bus."""
    chance = rng.random()
    if chance < 0.08:
        return objects.TRUCK
    return objects.BUS if chance < 0.16 else pick(rng, CARS)


def _plan_people(scene: Scene) -> None:
    """Pedestrians on the sidewalks and the zebra crossing; bicycles and motorcycles ridden and parked."""
    rng = scene.rng
    for _ in range(int(rng.poisson(4 + 9 * scene.density))):
        side = pick(rng, scene.sides)
        x = side.edge + side.out * rng.uniform(0.4, side.walk - 0.2)
        _plan_person(scene, x, 7 + 50 * rng.random() ** 1.9)
    if scene.crossing[0] < 45 and rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 4))):
            _plan_person(scene, rng.uniform(*scene.edges), scene.crossing[0] - rng.uniform(1.3, 3.5), math.pi / 2)
    ours, theirs = scene.edges[1] - PARKING * scene.sides[1].parking - 0.6, -1.15 - LANE * (scene.lanes - 1)
    for draw, chance in ((objects.draw_bicycle, 0.5), (objects.draw_motorcycle, 0.25)):
        for x, heading in ((ours, 0.0), (theirs, math.pi)):
            if rng.random() < chance:
                pose = scene.pose(x + rng.uniform(-0.2, 0.2), rng.uniform(8, 30), heading + rng.normal(0, 0.2))
                _plan_two_wheeler(scene, draw, pose, True)
        if rng.random() < chance:
            side, z, heading = pick(rng, scene.sides), rng.uniform(9, 28), rng.uniform(0.6, 2.2)
            x = side.edge + side.out * rng.uniform(0.5, 1)
            for step in range(int(rng.integers(1, 4))):
                _plan_two_wheeler(scene, draw, scene.pose(x, z + 0.9 * step, heading), False)


def _person_colours(rng: Rng) -> list[Colour]:
    """Trousers, coat, skin and hair."""
    trousers, coat = tone(rng, textures.CLOTHES[:7]), tone(rng, textures.CLOTHES)
    return [trousers, coat, pick(rng, textures.SKINS), pick(rng, textures.HAIRS)]


def _plan_person(scene: Scene, x: float, z: float, heading: float | None = None) -> None:
    rng = scene.rng
    heading = pick(rng, (0.15, -0.2, math.pi, 2.9, 1.4)) if heading is None else heading
    height = rng.normal(1.74, 0.08) if rng.random() < 0.9 else rng.uniform(1.1, 1.4)
    pose = scene.pose(x, z, heading)
    scene.add(z, objects.draw_person, pose, height, _person_colours(rng), rng.uniform(-0.3, 0.3))
    scene.canvas.shadow(pose.footprint(0.2, -0.15, 0.15), height)


def _plan_two_wheeler(scene: Scene, draw: Callable, pose: Pose, ridden: bool) -> None:
    helmet = tone(scene.rng, textures.CLOTHES + textures.PAINTS)
    scene.add(pose.z, draw, pose, [*_person_colours(scene.rng)[:3], helmet], ridden)
    scene.canvas.shadow(pose.footprint(0.18, -0.8, 0.8), 1.5 if ridden else 0.8)


def _plan_furniture(scene: Scene, side: Side) -> None:
    """Street trees, lamp posts, signs, bins and traffic lights along the kerb."""
    rng, out = scene.rng, side.out
    kerb, trees, lamps = side.edge + out * 0.45, rng.random() < 0.6, rng.random() < 0.75
    for z in filter(scene.free, np.arange(rng.uniform(7, 15), 100, rng.uniform(8, 15)).tolist()):
        if trees and rng.random() < 0.85:
            _plan_tree(scene, kerb + out * 0.4, z, big=rng.random() < 0.6)
    for z in filter(scene.free, np.arange(rng.uniform(10, 26), 100, 24).tolist()):
        if lamps:
            colour, height = tone(rng, textures.METALS), rng.uniform(5, 7.5)
            scene.add(z, objects.draw_pole, scene.pose(kerb, z), height, 0.14, colour, -out * rng.uniform(1, 2.2))
            scene.canvas.shadow([(kerb - 0.05, z), (kerb + 0.05, z)], 7)
    for z in filter(scene.free, rng.uniform(8, 45, rng.integers(0, 4)).tolist()):
        pose = scene.pose(kerb + out * rng.uniform(0, 0.4), z)
        scene.add(z, objects.draw_sign, pose, pick(rng, objects.SIGNS), rng.uniform(2.2, 3.0))
    for z in filter(scene.free, rng.uniform(8, 35, rng.integers(0, 3)).tolist()):
        width, height, depth = rng.uniform(0.5, 1.1), rng.uniform(0.8, 1.4), rng.uniform(0.4, 0.6)
        pose = scene.pose(kerb + out * rng.uniform(0.1, 0.8), z)
        scene.add(z, objects.draw_box, pose, (width, height, depth), tone(rng, textures.BINS))
        scene.canvas.shadow(pose.footprint(width / 2, 0, depth), height)
    _plan_signals(scene, kerb, -out)


def _plan_signals(scene: Scene, kerb: float, inwards: int) -> None:
    """Traffic lights on both sides of the side street."""
    rng = scene.rng
    if scene.crossing[0] > 70 or rng.random() < 0.2:
        return
    for z in (scene.crossing[0] - 5, scene.crossing[1] + 1):
        reach = inwards * rng.uniform(2.5, 4) * (rng.random() < 0.4)
        scene.add(z, objects.draw_traffic_light, scene.pose(kerb, z), int(rng.integers(3)), reach)
