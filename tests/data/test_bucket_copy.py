"""A data set in a bucket is copied before it is opened, and then reads as if it had been local all along."""

import collections
import shutil
import threading

import numpy as np
import pytest

from tests.data.sources.test_formats import WRITERS, write_coco, write_voc, write_yolo_txt
from yolox_jax import storage
from yolox_jax.data.sources.open import open_split
from yolox_jax.errors import UserError
from yolox_jax.storage import local_copy


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("YOLOX_JAX_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "data"


@pytest.fixture
def fetched(monkeypatch):
    """The names of the files that are downloaded."""
    names = []
    download = local_copy.download

    def note(path, *args, **kwargs):
        names.append(path.name)
        return download(path, *args, **kwargs)

    monkeypatch.setattr(local_copy, "download", note)
    return names


def upload(local, path):
    for name in storage.list_files(local):
        storage.upload(local / name, path / name)


@pytest.mark.parametrize(("kind", "store"), [*((kind, "gs") for kind in WRITERS), ("coco", "s3")])
def test_every_format_reads_from_a_bucket(kind, store, request, tmp_path, home, capsys):
    bucket = storage.resolve(request.getfixturevalue(f"{store}_bucket").address)
    data = WRITERS[kind](tmp_path / "local")
    upload(data["root"], bucket / "sets/small")
    local = open_split(data, "train")
    copied = open_split({**data, "root": str(bucket / "sets/small"), "local_dir": ""}, "train")
    assert copied.class_names == local.class_names and len(copied) == len(local)
    for index in range(len(local)):
        assert copied.encoded(index) == local.encoded(index) and copied.image_id(index) == local.image_id(index)
        np.testing.assert_array_equal(copied[index].boxes_xyxy, local[index].boxes_xyxy)
    assert (home / store / bucket.name / "sets/small").is_dir()
    assert f"from {bucket}/sets/small to {home}" in capsys.readouterr().out


def test_only_what_a_split_needs_is_copied(gs_bucket, tmp_path, home, fetched):
    bucket = storage.resolve(gs_bucket.address)
    for kind, write in {"coco": write_coco, "voc": write_voc, "yolo_txt": write_yolo_txt}.items():
        write(tmp_path / kind)
    files = {
        "coco": ["val.json", "val/1.jpg", "train.zip"],
        "voc": ["VOC2007/SegmentationClass/a.png", "VOC2012/JPEGImages/other.jpg"],
        "yolo_txt": ["val/images/1.jpg", "val/labels/1.txt"],
    }
    for kind, names in files.items():
        for name in names:
            (tmp_path / kind / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / kind / name).write_bytes(b"x")
    (tmp_path / "yolo_txt/data.yaml").write_text("train: images\nval: val/images\nnames: [ant, bee, cell]\n")
    of_kind = {
        "coco": {"train": "train.json", "train_images": "images", "val": "val.json", "val_images": "val"},
        "voc": {"train": "VOC2007/train"},
        "yolo_txt": {},
    }
    for kind, fields in of_kind.items():
        upload(tmp_path / kind, bucket / kind)
        open_split({"kind": kind, "root": str(bucket / kind), **fields}, "train")
        assert len(fetched) >= 5
        assert not {name.rpartition("/")[2] for name in files[kind]} & set(fetched), kind
        fetched.clear()


def test_a_later_run_fetches_only_what_changed(gs_bucket, tmp_path, home, fetched):
    root = storage.resolve(gs_bucket.address) / "coco"
    data = write_coco(tmp_path / "local") | {"root": str(root), "local_dir": str(tmp_path / "disk")}
    upload(tmp_path / "local", root)
    first = open_split(data, "train")
    content = [first.encoded(index) for index in range(4)]
    assert sorted(fetched) == ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "train.json"]
    fetched.clear()
    open_split(data, "train")
    assert fetched == []
    local = tmp_path / "disk/gs" / root.parts[0] / "coco/images"
    (local / "b.jpg").write_bytes(content[1][:-1])  # a copy that lost its end
    storage.write_bytes(root / "images/c.jpg", content[0])
    storage.write_bytes(root / "images/d.jpg", content[3])  # the same content, written again
    storage.remove(root / "images/a.jpg")
    second = open_split(data, "train")
    assert sorted(fetched) == ["b.jpg", "c.jpg", "d.jpg"] and not (local / "a.jpg").exists()
    assert [second.encoded(i) for i in range(3)] == [content[1], content[0], content[3]]


def test_an_interrupted_copy_resumes(gs_bucket, tmp_path, home, fetched, monkeypatch):
    root = storage.resolve(gs_bucket.address) / "coco"
    data = write_coco(tmp_path / "local") | {"root": str(root)}
    upload(tmp_path / "local", root)
    counted = local_copy.download

    def fail_at_the_third(path, *args, **kwargs):
        if len(fetched) == 2:
            raise KeyboardInterrupt
        return counted(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(local_copy, "download", fail_at_the_third)
        patched.setattr(local_copy, "_THREADS", 1)
        with pytest.raises(KeyboardInterrupt):
            open_split(data, "train")
    record = next(home.rglob(".copied.jsonl"))
    record.write_text(record.read_text() + '["images/c.jpg", 12')  # killed while it wrote a line
    assert len(open_split(data, "train")) == 4
    assert collections.Counter(fetched) == dict.fromkeys(["a.jpg", "b.jpg", "c.jpg", "d.jpg", "train.json"], 1)


def test_processes_of_a_machine_copy_once(gs_bucket, tmp_path, home, fetched):
    root = storage.resolve(gs_bucket.address) / "coco"
    data = write_coco(tmp_path / "local") | {"root": str(root)}
    upload(tmp_path / "local", root)
    threads = [threading.Thread(target=open_split, args=(data, "train")) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fetched) == 5


def test_a_disk_that_is_too_small_is_one_message_before_the_copy(gs_bucket, tmp_path, home, fetched, monkeypatch):
    root = storage.resolve(gs_bucket.address) / "coco"
    data = write_coco(tmp_path / "local") | {"root": str(root)}
    upload(tmp_path / "local", root)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1000, 0, 1000))
    with pytest.raises(UserError, match=r"copy of gs://.* needs 0\.0 MB, but .* set config\.data\.local_dir"):
        open_split(data, "train")
    assert fetched == []


def test_messages_name_the_bucket(gs_bucket, tmp_path, home):
    root = storage.resolve(gs_bucket.address) / "coco"
    data = write_coco(tmp_path / "local") | {"root": str(root)}
    with pytest.raises(UserError, match=f"config.data.train: there is no file {root}/train.json"):
        open_split(data, "train")
    with pytest.raises(UserError, match=r"config\.data\.local_dir is gs://x"):
        open_split(data | {"local_dir": "gs://x"}, "train")
    for field in ("/data/train.json", "gs://other/train.json", "../train.json"):
        with pytest.raises(UserError, match=r"config\.data\.train is .*below the root"):
            open_split(data | {"train": field}, "train")
