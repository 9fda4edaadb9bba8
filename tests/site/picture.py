"""What is on a picture (PNG, 8 bits, RGB or RGBA): width, height, colours, share and brightness of the most frequent one,
and whether the last pixels of every line have that one alone."""

import collections
import struct
import sys
import zlib

data = open(sys.argv[1], "rb").read()
assert data[:8] == b"\x89PNG\r\n\x1a\n", "no PNG"
at, packed = 8, b""
while at < len(data):
    length, kind = struct.unpack(">I4s", data[at : at + 8])
    body = data[at + 8 : at + 8 + length]
    if kind == b"IHDR":
        width, height, depth, colour = struct.unpack(">IIBB", body[:10])
    elif kind == b"IDAT":
        packed += body
    at += length + 12
assert depth == 8 and colour in (2, 6), (depth, colour)
size = 3 if colour == 2 else 4
stride = width * size
raw = zlib.decompress(packed)
previous = bytearray(stride)
colours = collections.Counter()
edges = collections.Counter()
for row in range(height):
    start = row * (stride + 1)
    how, line = raw[start], bytearray(raw[start + 1 : start + 1 + stride])
    for i in range(stride):
        left = line[i - size] if i >= size else 0
        up = previous[i]
        corner = previous[i - size] if i >= size else 0
        if how == 1:
            line[i] = (line[i] + left) & 255
        elif how == 2:
            line[i] = (line[i] + up) & 255
        elif how == 3:
            line[i] = (line[i] + (left + up) // 2) & 255
        elif how == 4:
            distances = (abs(up - corner), abs(left - corner), abs(left + up - 2 * corner))
            best = (left, up, corner)[distances.index(min(distances))]
            line[i] = (line[i] + best) & 255
    pixels = [bytes(line[i : i + 3]) for i in range(0, stride, size)]
    colours.update(pixels)
    edges.update(pixels[-6:])
    previous = line
ground, count = colours.most_common(1)[0]
alone = edges[ground] == 6 * height
print(width, height, len(colours), count / (width * height), sum(ground) // 3, int(alone))
