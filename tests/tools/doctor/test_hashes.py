"""The record of hashes names each file of a data set that is missing, has changed or is new."""

import hashlib
import json

import pytest

from tests import programs
from tests.material import ROOT
from tests.tools.doctor.made_data_sets import yolo_txt
from yolox_jax.errors import UserError
from yolox_jax.tools.doctor import hashes


@pytest.fixture
def root(tmp_path):
    (tmp_path / "set" / "images").mkdir(parents=True)
    for name in ("a.json", "images/1.jpg", "images/2.jpg", ".DS_Store"):
        (tmp_path / "set" / name).write_bytes(name.encode())
    return tmp_path / "set"


def test_hashes_are_those_of_sha256_by_relative_path(root):
    record = root / "hashes.json"
    record.write_text("of an earlier call")
    computed = hashes.compute(root, [], record, threads=2)
    names = ("a.json", "images/1.jpg", "images/2.jpg")
    assert computed == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    record.write_text(hashes.to_json(computed))
    assert hashes.read(record) == computed and hashes.check(computed, root, record, threads=2) == []
    moved = root.rename(root.with_name("moved"))
    assert hashes.check(computed, moved, moved / "hashes.json", threads=2) == []


def test_each_missing_changed_and_new_file_is_named(root):
    record = root / "hashes.json"
    expected = hashes.compute(root, [], record, threads=1)
    (root / "images" / "1.jpg").unlink()
    (root / "images" / "2.jpg").write_bytes(b"images/3.jpg")
    (root / "images" / "3.jpg").write_bytes(b"new")
    found = hashes.check(expected, root, record, threads=1)
    assert [(finding.severity, finding.code, finding.file.rpartition("/")[2]) for finding in found] == [
        ("error", "missing-file", "1.jpg"),
        ("error", "changed-file", "2.jpg"),
        ("warning", "extra-file", "3.jpg"),
    ]
    assert all(finding.what and finding.advice for finding in found)


def test_files_elsewhere_are_listed_if_the_data_set_uses_them_and_a_folder_is_followed_once(root, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "4.jpg").write_bytes(b"4")
    (root / "link").symlink_to(tmp_path / "other", target_is_directory=True)
    (root / "above").symlink_to(root, target_is_directory=True)
    used = [tmp_path / "other" / "4.jpg", "not a path", tmp_path / "no file"]
    computed = hashes.compute(root, used, root / "hashes.json", threads=1)
    assert {*computed} == {"a.json", "images/1.jpg", "images/2.jpg", "link/4.jpg", "../other/4.jpg"}
    assert hashes.check(computed, root, root / "hashes.json", threads=1) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"sha256": []}', '{"sha256": {"a": 1}}', '{"sha256": {"a": "ab"}}', "[" * 10**5]
)
def test_what_is_no_record_is_one_message(tmp_path, content):
    (tmp_path / "hashes.json").write_text(content)
    with pytest.raises(UserError, match=r"hashes\.json is no record of hashes .*give a file that --write-hashes wrote"):
        hashes.read(tmp_path / "hashes.json")
    with pytest.raises(UserError, match=r"none\.json cannot be read"):
        hashes.read(tmp_path / "none.json")
    with pytest.raises(UserError, match="gs://b/hashes.json is an address"):
        hashes.read("gs://b/hashes.json")


@pytest.mark.parametrize("data", [{"root": "gs://bucket/set"}, {"root": "nowhere"}, {"kind": "shapes", "root": "."}])
def test_a_data_set_without_local_files_is_refused(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"config\.data\.root"):
        hashes.root_of(data)


@pytest.mark.slow
def test_the_doctor_writes_hashes_and_finds_what_has_changed_since(tmp_path):
    root = tmp_path / "set"
    yolo_txt(root, "0 0.5 0.5 0.4 0.4\n1 0.2 0.2 0.3 0.3\n")
    arguments = [f"--config={ROOT / 'configs' / 'yolox_nano.py'}", "--config.data.kind=yolo_txt"]
    arguments += [f"--config.data.root={root}", "--json=found.json"]
    programs.run("-m yolox_jax.tools.doctor", [*arguments, "--write-hashes=new/hashes.json"], tmp_path, 0)
    assert len(json.loads((tmp_path / "new" / "hashes.json").read_text())["sha256"]) == 2 * 2 * 12 + 1
    label = root / "labels" / "train" / "0.txt"
    label.write_text(label.read_text().replace("0.4", "0.5"))
    programs.run("-m yolox_jax.tools.doctor", [*arguments, "--check-hashes=new/hashes.json"], tmp_path, 1)
    findings = json.loads((tmp_path / "found.json").read_text())["findings"]
    errors = [(each["code"], each["file"]) for each in findings if each["severity"] == "error"]
    assert errors == [("changed-file", str(label))]
