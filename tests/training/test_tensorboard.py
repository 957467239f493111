"""The event file has each number and picture of the records once, even after a run was resumed."""

from pathlib import Path

from benchmarks.crash_test import read_events
from yolox_jax.training.tensorboard import EventFile

_LOSS = {"step": 3, "time": 5.0, "loss": 2.5, "num_skipped": 0, "note": "not a number"}
_AP = {"step": 3, "time": 6.0, "event": "evaluation", "AP": 0.25}
_PICTURE = {"step": 3, "event": "batch", "picture": "pictures/batch_3.jpg", "height_width": [2, 4]}


def _values(folder: Path) -> dict[tuple[int, str], object]:
    """The numbers of the event file, by step and tag."""
    (file,) = folder.glob("events.out.tfevents.*")
    found = {}
    for event in read_events(file):
        for value in event.summary.value:
            assert (event.step, value.tag) not in found
            found[event.step, value.tag] = value.image if value.HasField("image") else value.simple_value
    return found


def test_numbers_and_pictures_are_there_once_whether_added_or_written_again(tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "batch_3.jpg").write_bytes(b"a picture")
    folder = tmp_path / "tensorboard"
    file = EventFile(folder, [])
    for record in (_LOSS, _PICTURE, _AP):
        file.add(record)
    file.close()
    first = _values(folder)
    EventFile(folder, [_LOSS, _PICTURE, _AP]).close()
    assert _values(folder) == first
    picture = first.pop((3, "batch"))
    assert (picture.encoded_image_string, picture.height, picture.width) == (b"a picture", 2, 4)
    assert first == {(3, "train/loss"): 2.5, (3, "train/num_skipped"): 0, (3, "evaluation/AP"): 0.25}


def test_a_picture_that_was_deleted_is_left_out(tmp_path):
    EventFile(tmp_path / "tensorboard", [_PICTURE, _AP]).close()
    assert list(_values(tmp_path / "tensorboard")) == [(3, "evaluation/AP")]
