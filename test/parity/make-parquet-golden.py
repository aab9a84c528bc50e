"""Parquet files of images as the hub's data sets have them, for src/training/data/parquet-source.test.ts.

Run: python test/parity/make-parquet-golden.py (pyarrow 26.0)
"""

import io
import json
import pathlib
import struct
import zlib

import pyarrow as pa
import pyarrow.parquet as pq

OUT = pathlib.Path(__file__).parent.parent / "reference" / "parquet"


def png(red, green, blue, side=8):
    """A PNG of one colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + bytes([red, green, blue]) * side for _ in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def images(count, first=0):
    return [{"bytes": png(10 * (first + i), 0, 0), "path": f"red {first + i}.png"} for i in range(count)]


def write(name, table, **options):
    path = OUT / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
FEATURES = {
    "info": {
        "features": {
            "photo": {"_type": "Image"},
            "thumbnail": {"_type": "Image"},
            "text": {"dtype": "string", "_type": "Value"},
        }
    }
}

# As the datasets library writes it: two row groups, features in the metadata, two shards and another split.
for shard in range(2):
    table = pa.table(
        {
            "thumbnail": pa.array(images(5, 20), IMAGE),
            "photo": pa.array(images(5, 5 * shard), IMAGE),
            "text": pa.array([f"red {5 * shard + i}" for i in range(5)]),
        }
    ).replace_schema_metadata({"huggingface": json.dumps(FEATURES)})
    write(f"hub/data/train-{shard:05d}-of-00002.parquet", table, row_group_size=3, compression="snappy")
write("hub/data/test-00000-of-00001.parquet", table)

# Plain columns under each codec, among the rows one without an image, one whose image is none, one without a caption.
rows = images(4)
plain = pa.table(
    {
        "id": pa.array([0, 1, 2, 3]),
        "jpg": pa.array([rows[0]["bytes"], None, b"no image", rows[3]["bytes"]], pa.binary()),
        "caption": pa.array(["first", "second", "third", None]),
    }
)
for codec in ["none", "snappy", "gzip", "zstd", "brotli", "lz4"]:
    write(f"{codec}.parquet", plain, compression=codec)
write("lists.parquet", pa.table({"image": pa.array(rows, IMAGE), "captions": pa.array([["a", "b"]] * 4)}))
print("pyarrow", pa.__version__)
