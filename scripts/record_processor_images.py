"""Record how Pillow reads pictures of many kinds, for test/processing/read-image.test.ts.

    HF_HUB_OFFLINE=1 python scripts/record_processor_images.py

Makes small pictures (synthetic gradients with noise) in the formats and variants that people have, healthy and broken,
and records what transformers' `load_image` makes of each: `exif_transpose(Image.open(file)).convert("RGB")`, or the
error. Writes test/vectors/processing/images/: the files, rgb.bin.gz (all RGB bytes, one after another) and
manifest.json. Chunks of PNG that Pillow cannot write (16-bit colour, Adam7) are put together here.
"""

import gzip
import hashlib
import io
import json
import pathlib
import shutil
import struct
import warnings
import zlib

import numpy as np
import PIL
import transformers
from PIL import Image, ImageCms, PngImagePlugin
from transformers.image_utils import load_image

SEED = 7
OUT = pathlib.Path(__file__).resolve().parent.parent / "test" / "vectors" / "processing" / "images"
rng = np.random.default_rng(SEED)


def picture(width=37, height=29, channels=3):
    """Smooth colour gradients, an edge and some noise; no symmetry, so that every orientation differs."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    planes = []
    for c in range(channels):
        plane = 127 + 90 * np.sin(x / (5 + 2 * c) + c) * np.cos(y / (7 + c)) + 30 * (x > width / 3) - 25 * (y > height / 2)
        planes.append(plane + rng.normal(0, 8, plane.shape))
    data = np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)
    return data if channels > 1 else data[:, :, 0]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, depth, colour, rows, *, interlace=0, before=b"", signature=b"\x89PNG\r\n\x1a\n"):
    """A PNG of the given filtered rows."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlace)
    return signature + chunk(b"IHDR", header) + before + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def rows_of(array):
    """Unfiltered rows of an array [height, width, channels] of big-endian samples."""
    return b"".join(b"\0" + row.tobytes() for row in array)


def adam7(array):
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [array[y0::dy, x0::dx] for x0, y0, dx, dy in passes]
    return b"".join(rows_of(part) for part in parts if part.size)


def save(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def wide_gamut_profile():
    """A matrix ICC profile with swapped-looking primaries, which no one may apply unnoticed."""
    fixed = lambda v: struct.pack(">i", round(v * 65536))
    xyz = lambda *v: b"XYZ \0\0\0\0" + b"".join(map(fixed, v))
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(1.4 * 256)) + b"\0\0"
    text = b"text\0\0\0\0graft\0\0\0"
    desc = b"desc\0\0\0\0" + struct.pack(">I", 6) + b"graft\0" + b"\0" * 79
    desc += b"\0" * (-len(desc) % 4)
    tags = {b"desc": desc, b"cprt": text, b"wtpt": xyz(0.9642, 1, 0.8249), b"rXYZ": xyz(0.61, 0.31, 0.02),
            b"gXYZ": xyz(0.2, 0.62, 0.06), b"bXYZ": xyz(0.15, 0.06, 0.74), b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, data in tags.items():
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = 128 + 4 + len(table) + len(body)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28
    header += fixed(0.9642) + fixed(1) + fixed(0.8249) + b"\0" * 48
    profile = header + struct.pack(">I", len(tags)) + table + body
    ImageCms.ImageCmsProfile(io.BytesIO(profile))  # it is well-formed
    return profile


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


def build():
    files = {}
    rgb = picture()
    image = Image.fromarray(rgb)
    alpha = picture(channels=4)
    alpha[:5, :, 3] = 0  # colours below full transparency
    rgba = Image.fromarray(alpha)
    gray = Image.fromarray(picture(channels=1))
    palette = image.quantize(60)
    icc = wide_gamut_profile()

    # PNG
    files["rgb.png"] = save(image, "PNG")
    files["rgba.png"] = save(rgba, "PNG")
    files["gray.png"] = save(gray, "PNG")
    files["gray-alpha.png"] = save(rgba.convert("LA"), "PNG")
    files["bilevel.png"] = save(gray.convert("1"), "PNG")
    files["gray-2bit.png"] = png(16, 2, 2, 0, b"\0\x1b\xe4\x00\xff" + b"\0\xaa\x55\x1b\xe4")
    files["gray-4bit.png"] = png(8, 2, 4, 0, b"\0\x01\x23\x45\x67" + b"\0\x89\xab\xcd\xef")
    files["palette.png"] = save(palette, "PNG")
    files["palette-4bit.png"] = save(image.quantize(12), "PNG", bits=4)
    files["palette-transparent.png"] = save(palette, "PNG", transparency=bytes(range(0, 240, 4)))
    files["palette-one-transparent.png"] = save(palette, "PNG", transparency=3)
    files["rgb-transparent-colour.png"] = save(image, "PNG", transparency=tuple(int(v) for v in rgb[3, 4]))
    files["gray-transparent-level.png"] = save(gray, "PNG", transparency=int(np.array(gray)[2, 2]))
    deep = lambda channels: (picture(channels=channels).reshape(29, 37, channels).astype(np.uint16) * 257 + rng.integers(0, 2**15, (29, 37, channels)) % 250).astype(">u2")
    low = (picture(channels=1).astype(np.int64) * 2 - 100).clip(0, 400)[:, :, None].astype(">u2")
    files["gray-16bit.png"] = png(37, 29, 16, 0, rows_of(deep(1)))
    files["gray-16bit-dark.png"] = png(37, 29, 16, 0, rows_of(low))
    files["gray-alpha-16bit.png"] = png(37, 29, 16, 4, rows_of(deep(2)))
    files["rgb-16bit.png"] = png(37, 29, 16, 2, rows_of(deep(3)))
    files["rgba-16bit.png"] = png(37, 29, 16, 6, rows_of(deep(4)))
    files["interlaced.png"] = png(37, 29, 8, 2, adam7(rgb), interlace=1)
    files["gamma.png"] = png(37, 29, 8, 2, rows_of(rgb), before=chunk(b"gAMA", struct.pack(">I", 100000)))
    files["icc.png"] = save(image, "PNG", icc_profile=icc)
    files["gray-icc.png"] = save(gray, "PNG", icc_profile=icc)
    files["oriented-6.png"] = save(image, "PNG", exif=exif(6))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>')
    files["oriented-xmp.png"] = save(image, "PNG", pnginfo=text)
    files["animated.png"] = save(image, "PNG", save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    files["one-pixel.png"] = save(image.crop((3, 3, 4, 4)), "PNG")
    files["one-row.png"] = save(image.crop((0, 3, 37, 4)), "PNG")
    files["one-column.png"] = save(image.crop((3, 0, 4, 29)), "PNG")
    files["trailing-bytes.png"] = files["rgb.png"] + b"junk" * 50
    files["png-named.jpg"] = files["rgb.png"]
    files["truncated.png"] = files["rgb.png"][: len(files["rgb.png"]) // 2]
    files["header-only.png"] = files["rgb.png"][:40]
    files["no-end.png"] = files["rgb.png"][:-12]
    files["bad-header-checksum.png"] = files["rgb.png"][:29] + b"\0\0\0\0" + files["rgb.png"][33:]
    broken = bytearray(files["rgb.png"])
    at = broken.index(b"IDAT") + 500
    broken[at : at + 20] = b"\xff" * 20
    files["broken-data.png"] = bytes(broken)
    files["zero-width.png"] = png(0, 29, 8, 2, b"")
    files["zero-height.png"] = png(37, 0, 8, 2, b"")
    files["too-few-rows.png"] = png(37, 29, 8, 2, rows_of(rgb[:10]))
    files["huge.png"] = png(60000, 60000, 8, 0, b"\0" * 1000)
    files["huge-thin.png"] = png(2**31 - 1, 1, 1, 0, b"\0" * 1000)

    # JPEG
    for name, sampling in [("444", 0), ("422", 1), ("420", 2)]:
        files[f"sampling-{name}.jpg"] = save(image, "JPEG", quality=88, subsampling=sampling)
    files["low-quality.jpg"] = save(image, "JPEG", quality=12)
    files["progressive.jpg"] = save(image, "JPEG", quality=80, progressive=True)
    files["large.jpg"] = save(Image.fromarray(picture(203, 150)), "JPEG", quality=90, restart_marker_rows=2)
    files["gray.jpg"] = save(gray, "JPEG", quality=85)
    files["rgb-kept.jpg"] = save(image, "JPEG", quality=85, keep_rgb=True)
    files["cmyk.jpg"] = save(Image.fromarray(picture(channels=4), "CMYK"), "JPEG", quality=92)
    files["cmyk-icc.jpg"] = save(Image.fromarray(picture(channels=4), "CMYK"), "JPEG", quality=92, icc_profile=icc)
    files["icc.jpg"] = save(image, "JPEG", quality=90, icc_profile=icc)
    for orientation in range(1, 9):
        files[f"oriented-{orientation}.jpg"] = save(image, "JPEG", quality=90, exif=exif(orientation))
    files["oriented-9.jpg"] = save(image, "JPEG", quality=90, exif=exif(9))
    files["oriented-0.jpg"] = save(image, "JPEG", quality=90, exif=exif(0))
    files["oriented-gray-5.jpg"] = save(gray, "JPEG", quality=90, exif=exif(5))
    xmp = b'http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/"><tiff:Orientation>8</tiff:Orientation></x:xmpmeta>'
    plain = files["sampling-444.jpg"]
    files["oriented-xmp.jpg"] = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + plain[2:]
    files["broken-exif.jpg"] = plain[:2] + b"\xff\xe1" + struct.pack(">H", 14) + b"Exif\0\0II*\0\xff\xff" + plain[2:]
    files["truncated.jpg"] = files["large.jpg"][: len(files["large.jpg"]) // 2]
    files["no-end.jpg"] = plain[:-2]
    files["trailing-bytes.jpg"] = plain + b"junk" * 50
    files["header-only.jpg"] = plain[:150]
    damaged = bytearray(files["large.jpg"])
    damaged[len(damaged) // 2 : len(damaged) // 2 + 12] = b"\x55" * 12
    files["damaged.jpg"] = bytes(damaged)
    zero = bytearray(plain)
    at = zero.index(b"\xff\xc0")
    zero[at + 7 : at + 9] = b"\0\0"
    files["zero-width.jpg"] = bytes(zero)
    zero[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    files["huge.jpg"] = bytes(zero)

    # GIF
    files["palette.gif"] = save(palette, "GIF")
    files["gray.gif"] = save(gray, "GIF")
    files["interlaced.gif"] = save(palette, "GIF", interlace=1)
    files["transparent.gif"] = save(palette, "GIF", transparency=int(np.array(palette)[10, 10]))
    files["animated.gif"] = save(palette, "GIF", save_all=True, append_images=[palette.transpose(Image.Transpose.ROTATE_180)], duration=50)
    # A frame inside a larger canvas; with and without a transparent colour, with and without a palette of its own.
    frame = save(image.crop((0, 0, 9, 6)).quantize(8), "GIF")
    table, rest = frame[13 : 13 + 24], frame[13 + 24 :]
    rest = rest[rest.index(b",") :]
    place = lambda rest, flags=0, table=b"": b"," + struct.pack("<HHHHB", 3, 2, 9, 6, flags) + table + rest[10:]
    control = lambda index: b"!\xf9\x04" + struct.pack("<BHB", 1, 0, index) + b"\0"
    canvas = lambda flags, background=0: b"GIF89a" + struct.pack("<HHBBB", 16, 12, flags, background, 0)
    colours = bytes(range(40, 64))
    files["inner-frame.gif"] = canvas(0xF2, 5) + table + place(rest)
    files["inner-frame-transparent.gif"] = canvas(0xF2, 5) + table + control(4) + place(rest)
    files["inner-frame-own-palette.gif"] = canvas(0xF2) + colours + control(2) + place(rest, 0x82, table)
    files["no-global-palette.gif"] = canvas(0x70) + place(rest, 0x82, table)
    files["no-palette.gif"] = canvas(0x70) + place(rest)
    files["transparent-beyond-palette.gif"] = canvas(0xF2) + table + control(200) + place(rest)
    files["frame-beyond-canvas.gif"] = b"GIF89a" + struct.pack("<HHBBB", 8, 5, 0xF2, 0, 0) + table + place(rest)
    files["zero-canvas.gif"] = b"GIF89a" + struct.pack("<HHBBB", 0, 0, 0xF2, 0, 0) + table + b"," + struct.pack("<HHHHB", 0, 0, 9, 6, 0) + rest[10:]
    files["no-frame.gif"] = canvas(0xF2) + table + b";"
    files["truncated.gif"] = files["palette.gif"][: len(files["palette.gif"]) * 2 // 3]

    # WebP
    files["lossy.webp"] = save(image, "WEBP", quality=80)
    files["lossless.webp"] = save(image, "WEBP", lossless=True)
    files["lossless-alpha.webp"] = save(rgba, "WEBP", lossless=True, exact=True)
    files["lossy-alpha.webp"] = save(rgba, "WEBP", quality=80)
    files["animated.webp"] = save(image, "WEBP", lossless=True, save_all=True, append_images=[image.transpose(Image.Transpose.ROTATE_180)])
    files["oriented-6.webp"] = save(image, "WEBP", lossless=True, exif=exif(6))
    files["truncated.webp"] = files["lossless.webp"][: len(files["lossless.webp"]) // 2]

    # TIFF
    files["rgb.tif"] = save(image, "TIFF")
    files["lzw.tif"] = save(image, "TIFF", compression="tiff_lzw")
    files["jpeg.tif"] = save(image, "TIFF", compression="jpeg", quality=90)
    files["rgba.tif"] = save(rgba, "TIFF")
    files["gray.tif"] = save(gray, "TIFF")
    files["bilevel.tif"] = save(gray.convert("1"), "TIFF")
    files["palette.tif"] = save(palette, "TIFF")
    files["cmyk.tif"] = save(Image.fromarray(picture(channels=4), "CMYK"), "TIFF")
    files["gray-16bit.tif"] = save(Image.fromarray(low[:, :, 0].astype(np.uint16)), "TIFF")
    files["float.tif"] = save(Image.fromarray(picture(channels=1).astype(np.float32) * 1.7 - 60.3), "TIFF")
    files["int32.tif"] = save(Image.fromarray(picture(channels=1).astype(np.int32) * 3 - 200), "TIFF")
    files["pages.tif"] = save(image, "TIFF", save_all=True, append_images=[gray])
    files["oriented-6.tif"] = save(image, "TIFF", tiffinfo={0x0112: 6})
    files["truncated.tif"] = files["rgb.tif"][: len(files["rgb.tif"]) // 2]

    # Other formats, and no pictures at all
    files["rgb.avif"] = save(image, "AVIF", quality=90, subsampling="4:4:4")
    files["alpha.avif"] = save(rgba, "AVIF", quality=90)
    files["rgb.bmp"] = save(image.crop((0, 0, 8, 6)), "BMP")
    files["rgb.ico"] = save(image.resize((16, 16)), "ICO")
    files["rgb.ppm"] = save(image.crop((0, 0, 8, 6)), "PPM")
    files["rgb.jp2"] = save(image.crop((0, 0, 8, 6)), "JPEG2000")
    files["rgb.tga"] = save(image.crop((0, 0, 8, 6)), "TGA")
    files["drawing.svg"] = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><rect width="8" height="8" fill="red"/></svg>'
    files["svg-named.png"] = files["drawing.svg"]
    files["page.pdf"] = b"%PDF-1.4\n1 0 obj<<>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
    files["photo.heic"] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
    files["text.png"] = b"hello, not a picture\n"
    files["page.jpg"] = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    files["pointer.png"] = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
    files["empty.png"] = b""
    files["zeros.png"] = bytes(200)
    return files


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    entries, blob = [], b""
    for name, data in build().items():
        path = OUT / name
        path.write_bytes(data)
        entry = {"file": name, "sha256": hashlib.sha256(data).hexdigest()}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(path) as opened:
                    entry["format"], entry["mode"] = opened.format, opened.mode
                pixels = np.array(load_image(str(path)))
            assert pixels.dtype == np.uint8 and pixels.shape[2] == 3
            entry |= {"height": pixels.shape[0], "width": pixels.shape[1], "offset": len(blob)}
            blob += pixels.tobytes()
        except Exception as error:
            entry["error"] = f"{type(error).__name__}: {error}".replace(str(OUT) + "/", "")
        entries.append(entry)
    (OUT / "rgb.bin.gz").write_bytes(gzip.compress(blob, mtime=0))
    versions = {"pillow": PIL.__version__, "transformers": transformers.__version__, "numpy": np.__version__}
    manifest = {"script": "scripts/record_processor_images.py", "seed": SEED, "versions": versions, "images": entries}
    (OUT / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
