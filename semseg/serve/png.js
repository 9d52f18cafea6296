// Masks between PNG files and plain numbers. A canvas would give colours, which some browsers blur.

const paeth = (a, b, c) => {
  const p = a + b - c;
  const [x, y, z] = [Math.abs(p - a), Math.abs(p - b), Math.abs(p - c)];
  return x <= y && x <= z ? a : y <= z ? b : c;
};

const unfilter = (raw, width, height) => {
  const ids = new Uint8Array(width * height);
  for (let row = 0, from = 0, to = 0; row < height; row++) {
    const kind = raw[from++];
    for (let column = 0; column < width; column++, from++, to++) {
      const left = column ? ids[to - 1] : 0;
      const up = row ? ids[to - width] : 0;
      const before = column && row ? ids[to - width - 1] : 0;
      const guess = [0, left, up, (left + up) >> 1, kind === 4 ? paeth(left, up, before) : 0][kind];
      ids[to] = raw[from] + guess;
    }
  }
  return ids;
};

const unfilterUp = (raw, width, height) => {
  const ids = new Uint8Array(width * height);
  for (let row = 0, from = 0, to = 0; row < height; row++) {
    if (raw[from++] !== 2) return unfilter(raw, width, height);
    for (let column = 0; column < width; column++, from++, to++) ids[to] = raw[from] + (row ? ids[to - width] : 0);
  }
  return ids;
};

const through = async (parts, stream) =>
  new Uint8Array(await new Response(new Blob(parts).stream().pipeThrough(stream)).arrayBuffer());

/** The numbers in a PNG file of 8-bit numbers or palette indices, without interlacing, as the server writes them. */
export const numbersOfPng = async (blob) => {
  const data = new DataView(await blob.arrayBuffer());
  const parts = [];
  for (let at = 8; at < data.byteLength; at += 12 + data.getUint32(at)) {
    if (data.getUint32(at + 4) === 0x49444154) parts.push(new Uint8Array(data.buffer, at + 8, data.getUint32(at)));
  }
  const raw = await through(parts, new DecompressionStream("deflate"));
  const [width, height] = [data.getUint32(16), data.getUint32(20)];
  return { width, height, ids: unfilterUp(raw, width, height) };
};

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

const chunk = (name, content) => {
  const bytes = new Uint8Array(12 + content.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  bytes.set(content, 8);
  let crc = 0xffffffff;
  for (let at = 4; at < 8 + content.length; at++) crc = CRC_TABLE[(crc ^ bytes[at]) & 255] ^ (crc >>> 8);
  view.setUint32(8 + content.length, ~crc >>> 0);
  return bytes;
};

/** A PNG file of 8-bit numbers, row by row; each row is stored as its difference from the one above. */
export const pngOfNumbers = async (ids, width, height) => {
  const raw = new Uint8Array(height * (width + 1));
  for (let row = 0, from = 0, to = 0; row < height; row++) {
    raw[to++] = 2;
    for (let column = 0; column < width; column++, from++) raw[to++] = ids[from] - (row ? ids[from - width] : 0);
  }
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = 8; // bits; what follows says grey, deflate, no interlacing
  const parts = [
    Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a), chunk("IHDR", header),
    chunk("IDAT", await through([raw], new CompressionStream("deflate"))), chunk("IEND", new Uint8Array(0)),
  ];
  return new Blob(parts, { type: "image/png" });
};
