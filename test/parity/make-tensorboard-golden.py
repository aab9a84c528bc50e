"""Event files as TensorBoard's own writer makes them: test/reference/tensorboard.

Run from the repository's root with tensorboard 2.21 (it brings its own protocol buffers):
    python test/parity/make-tensorboard-golden.py
With a folder as argument it instead reads the event files in it with TensorBoard's reader, and prints what it found.
"""

import base64
import json
import os
import sys

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter

FOLDER = "test/reference/tensorboard"
# A red pixel.
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
)
EVENTS = [
    {"wallTime": 1700000000.25, "step": 0, "fileVersion": "brain.Event:2"},
    {"wallTime": 1700000000.5, "step": 3, "isStart": True},
    {
        "wallTime": 1700000001.0,
        "step": 3,
        "values": [{"tag": "loss/train", "scalar": 0.125}, {"tag": "gates/1", "scalar": 0.0}],
    },
    {"wallTime": 1700000002.0, "step": 123456, "values": [{"tag": "samples/ein Haus ∕ é", "width": 1, "height": 1}]},
]


def message(event):
    made = event_pb2.Event(wall_time=event["wallTime"], step=event["step"])
    if "fileVersion" in event:
        made.file_version = event["fileVersion"]
    if event.get("isStart"):
        made.session_log.status = event_pb2.SessionLog.START
    for value in event.get("values", []):
        if "scalar" in value:
            made.summary.value.add(tag=value["tag"], simple_value=value["scalar"])
        else:
            image = summary_pb2.Summary.Image(
                height=value["height"], width=value["width"], colorspace=3, encoded_image_string=PNG
            )
            made.summary.value.add(tag=value["tag"], image=image)
    return made.SerializeToString(deterministic=True)


def make():
    os.makedirs(FOLDER, exist_ok=True)
    with open(f"{FOLDER}/events.out.tfevents", "wb") as file:
        writer = RecordWriter(file)
        for event in EVENTS:
            writer.write(message(event))
    with open(f"{FOLDER}/picture.png", "wb") as file:
        file.write(PNG)
    with open(f"{FOLDER}/events.json", "w") as file:
        json.dump({"events": EVENTS}, file, ensure_ascii=False, indent=1)
        file.write("\n")


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(folder, size_guidance={"scalars": 0, "images": 0})
    accumulator.Reload()
    tags = accumulator.Tags()
    print("images", {tag: [(e.step, e.width, e.height) for e in accumulator.Images(tag)] for tag in tags["images"]})
    for tag in tags["scalars"]:
        print(tag, [(event.step, round(event.value, 5)) for event in accumulator.Scalars(tag)])


if len(sys.argv) > 1:
    read(sys.argv[1])
else:
    make()
