"""train.py, eval.py and the tools with a config, started as a user starts them on a small COCO data set on disk."""

import fcntl
import json
import os
import re
import shlex
import shutil
import signal

import cv2
import pytest

from tests import programs
from yolox_jax.weights.checkpoint import find


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A data set whose path has a space."""
    root = tmp_path_factory.mktemp("somewhere") / "a data set"
    programs.make_data_set(root)
    return root


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("elsewhere")
    finished = programs.run("train.py", [*programs.arguments(data), "--workdir=runs/first"], cwd)
    assert finished.returncode == 0, finished.stderr
    return cwd, finished.stdout


def _ap_lines(text: str) -> list[str]:
    return re.findall(r"^ +AP .*$|^ +AR_1 .*$", text, flags=re.MULTILINE)


def test_training_reports_its_progress_and_writes_its_results(run, data):
    cwd, output = run
    assert re.match(r"YOLOX-pico, 41\d,\d{3} parameters, 0\.0 GFLOP per image at 64x64, float32 on 1 cpu", output)
    assert "12 training and 12 validation images of coco data, 4 classes: circle, square, triangle, star" in output
    assert re.search(r"step 6/6 epoch 2/2  loss \d.*images/s, \d+\.\d% waiting for data  ETA 0:00:00", output)
    workdir = cwd / "runs" / "first"
    results = json.loads((workdir / "results.json").read_text())
    assert 0 <= results["AP50"] <= 1 and results["num_images"] == programs.NUM_IMAGES
    sheet = cv2.imread(str(workdir / "predictions.jpg"))
    assert sheet.shape == (640, 1280, 3)  # eight images in two rows
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records if "loss" in r] == [0, 1, 2, 3, 4, 5]
    assert [r["step"] for r in records if r.get("event") == "evaluation"] == [2, 5]
    # The first batch, the first of the no-aug epochs, and the detections of each evaluation.
    pictures = {path.name for path in (workdir / "pictures").iterdir()}
    assert pictures == {"batch_0.jpg", "batch_3.jpg", "predictions_2.jpg", "predictions_5.jpg"}
    (command,) = re.findall(r"^  python eval.py .*$", output, flags=re.MULTILINE)
    assert shlex.split(command)[3:] == ["--weights=runs/first", *programs.arguments(data)[1:]]


def test_eval_prints_the_last_aps_of_training_and_writes_detections_and_plots(run, data):
    cwd, output = run
    arguments = [a for a in programs.arguments(data) if "epochs" not in a]
    arguments += ["--weights=runs/first", "--output=again.json", "--detections=found.json", "--plots=plots"]
    arguments += ["--against=runs/first/last"]
    finished = programs.run("eval.py", arguments, cwd)
    assert finished.returncode == 0, finished.stderr
    assert _ap_lines(finished.stdout) == 2 * _ap_lines(output) != []  # of both weights, which are the same
    first = json.loads((cwd / "runs" / "first" / "results.json").read_text())
    again = json.loads((cwd / "again.json").read_text())
    assert again.pop("weights") == "runs/first"
    assert "evaluating YOLOX-pico at 64x64\n" in finished.stdout
    assert {k: v for k, v in first.items() if k != "images_per_second"} == {
        k: v for k, v in again.items() if k != "images_per_second"
    }
    detections = json.loads((cwd / "found.json").read_text())
    assert "plots are in plots; best F1" in finished.stdout
    assert cv2.imread(str(cwd / "plots" / "confusion.png")) is not None
    page = (cwd / "plots" / "report.html").read_text()
    assert "<title>runs/first against runs/first/last</title>" in page
    assert {"Confusion matrix", "Images with the most mistakes"} <= set(re.findall("<h2>(.*?)</h2>", page))
    assert len(re.findall('<img [^>]*src="data:image/(?:png|jpeg);base64,[^"]{1000}', page)) == 2 * 4  # of both weights
    assert detections and {detection["category_id"] for detection in detections} <= {10, 20, 30, 40}


@pytest.mark.slow
def test_a_killed_run_resumes_as_if_it_had_not_been_killed(run, data):
    cwd, _ = run
    arguments = [*programs.arguments(data), "--workdir=runs/killed", "--config.checkpoint.every_steps=2"]
    process = programs.start("train.py", arguments, cwd)
    process.wait_for_step(4)  # a save waits for the one before, so step 2 is on disk
    process.send(signal.SIGKILL)
    process.end(-signal.SIGKILL)
    assert re.search(r"^resuming from step [1-5] of", programs.run("train.py", arguments, cwd, 0).stdout, re.MULTILINE)
    killed, whole = (_comparable(cwd / "runs" / name) for name in ("killed", "first"))
    assert killed == whole and len(whole) > 6


def _comparable(workdir) -> list[dict]:
    """The records of metrics.jsonl without what depends on the clock and the process."""
    by_process = ("time", "images_per_second", "data_wait", "num_programs")
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in by_process} for record in records]


@pytest.mark.slow
def test_a_finished_run_that_is_started_again_gives_the_same_results(run, data):
    cwd, output = run
    finished = programs.run("train.py", [*programs.arguments(data), "--workdir=runs/first"], cwd)
    assert finished.returncode == 0, finished.stderr
    assert "resuming from step 6" in finished.stdout
    assert _ap_lines(finished.stdout) == _ap_lines(output)


@pytest.mark.slow
@pytest.mark.parametrize(("signal_name", "workers"), [("SIGTERM", 0), ("SIGINT", 1)])
def test_a_run_that_is_asked_to_stop_saves_ends_its_children_and_resumes(data, tmp_path, signal_name, workers):
    arguments = [*programs.arguments(data), "--workdir=run", "--config.epochs=5000", f"--config.data.workers={workers}"]
    saved_before = 0
    for restart in range(2):
        process = programs.start("train.py", arguments, tmp_path)
        process.wait_for_step()
        told = list(process.output)
        # To the whole process group, as a terminal and most schedulers do.
        os.killpg(process.pid, getattr(signal, signal_name))
        ended = process.end(75)  # which also waits for every child that holds the pipes
        output = ended.stdout
        assert "Traceback" not in ended.stderr
        saved = int(find(tmp_path / "run").name)
        words = (
            rf"saved at step {saved} of run; the same command resumes|stopped during an evaluation, after saving; the"
        )
        assert re.search(rf"^{signal_name}: ({words})", output, re.MULTILINE), output
        if restart:
            assert f"resuming from step {saved_before} of run\n" in told
            assert saved > saved_before
            assert next(line for line in told if line.startswith("step ")).startswith(f"step {saved_before + 1}/")
        saved_before = saved
    steps = programs.steps(tmp_path / "run")
    assert steps == list(range(len(steps)))


@pytest.mark.slow
def test_a_second_run_in_the_same_directory_is_refused(data, tmp_path):
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        finished = programs.run("train.py", [*programs.arguments(data), "--workdir=run"], tmp_path)
    assert finished.returncode == 1
    assert finished.stderr.endswith("another run is writing to run: wait for it, or choose another --workdir\n")


@pytest.mark.slow
def test_a_config_that_cannot_resume_the_run_is_refused_with_the_differences_and_the_ways_out(run, data):
    cwd, _ = run
    for changed, message in (
        ("--config.seed=1", "seed: 0 there, 1 here"),
        ("--config.batch_size=6", "global_batch: 4 there, 6 here"),
        ("--config.optimizer=sgd", "optimizer: adamw there, sgd here"),
        ("--config.epochs=1", "6 steps are done there, the config has 3"),
    ):
        extra = ["--config.warmup_epochs=0", "--config.no_aug_epochs=0"]
        finished = programs.run("train.py", [*programs.arguments(data), "--workdir=runs/first", *extra, changed], cwd)
        assert finished.returncode == 1
        assert message in finished.stderr
        assert "--config.resume=false" in finished.stderr and "--config.init_from=runs/first" in finished.stderr


@pytest.mark.slow
def test_an_unreadable_image_is_reported_once_and_replaced_or_refused(data, tmp_path):
    shutil.copytree(data, tmp_path / "set")
    (tmp_path / "set" / "images" / "5.png").write_bytes((data / "images" / "5.png").read_bytes()[:300])
    finished = programs.run("train.py", [*programs.arguments(tmp_path / "set"), "--workdir=run"], tmp_path)
    assert finished.returncode == 0, finished.stderr
    # Two epochs and two evaluations read it, in two splits: one warning for each split.
    assert finished.stderr.count("5.png is truncated after 300 bytes") == 2
    refused = [*programs.arguments(tmp_path / "set"), "--workdir=other", "--config.data.bad_images=refuse"]
    finished = programs.run("train.py", refused, tmp_path)
    assert finished.returncode == 1
    assert "error: 1 images cannot be used" in finished.stderr and "5.png is truncated" in finished.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mosaic_prob", [0, 1])
def test_show_batch_writes_a_sheet_of_the_training_images(data, tmp_path, mosaic_prob):
    arguments = [*programs.arguments(data), f"--config.mosaic.prob={mosaic_prob}", "--config.hsv.enabled=true"]
    finished = programs.run(
        "-m yolox_jax.tools.show_batch", [*arguments, "--output=made/sheet.png", "--max_images=3"], tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    assert re.fullmatch(r"made/sheet\.png: 4 images of step 0, \d+ boxes\n", finished.stdout)
    assert cv2.imread(str(tmp_path / "made" / "sheet.png")).shape == (320, 3 * 320, 3)


@pytest.mark.slow
def test_show_assignment_writes_a_sheet_and_counts_the_positive_anchors_of_each_level(data, tmp_path):
    finished = programs.run(
        "-m yolox_jax.tools.show_assignment", [*programs.arguments(data), "--output=made/sheet.png"], tmp_path
    )
    assert finished.returncode == 0, finished.stderr
    printed = re.fullmatch(
        r"made/sheet\.png: step 0, (\d+) boxes, (\d+) positive anchors \((\d+) of stride 8, (\d+) of stride 16, "
        r"(\d+) of stride 32\), boxes without anchors: (\d+)\n",
        finished.stdout,
    )
    num_boxes, num_positive, *of_level, num_without = map(int, printed.groups())
    assert sum(of_level) == num_positive >= num_boxes - num_without > 0
    assert cv2.imread(str(tmp_path / "made" / "sheet.png")).shape[1] == 4 * 640


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.num_classes=7", "config.num_classes is 7, but the data set has 4 classes (circle, square"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("--config.epoch=5", "--config has no field 'epoch'"),
                ("--config.epochs=many", "flag --config.epochs=many: invalid literal"),
                ("--config=quickstar", "there is no config quickstar: give a file, or one of finetune, quick"),
                ("--config=yolox_s:relase", "there is no recipe 'relase': choose one of release, large_batch"),
                ("--config.data.train=absent.json", "config.data.train: there is no file"),
                ("--config.freeze=('backbon/',)", "config.freeze has 'backbon/', which matches no variable"),
                ("--config.tracker=comet", "config.tracker is 'comet': choose one of wandb, mlflow, or leave it empty"),
                ("--config.init_from=absent.pth", "there is no file or folder absent.pth"),
            )
        ),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_one(data, tmp_path, argument, message):
    finished = programs.run("train.py", [*programs.arguments(data), "--workdir=run", argument], tmp_path)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert "Traceback" not in finished.stderr


@pytest.mark.slow
def test_a_run_with_the_rarer_fields_stops_early_since_its_ap_stays_the_same(data, tmp_path):
    """All BatchNorms frozen and the learning rate 0: no evaluation is better than the first."""
    fields = ["--config.epochs=5", "--config.patience=1", "--config.profile=2", "--config.lr_per_image=0.0"]
    fields += ["--config.freeze=('backbone/', 'head/stems', 'head/cls', 'head/reg')"]
    fields += ["--config.accumulate_steps=2", "--config.data.repeat_threshold=0.9", "--workdir=run"]
    output = programs.run("train.py", [*programs.arguments(data), *fields], tmp_path, 0).stdout
    assert (
        "parameters; backbone/, head/stems, head/cls, head/reg frozen" in output and "images in 2 parts each" in output
    )
    (num_images,) = re.findall(r"^(\d+) training and 12 validation images", output, flags=re.MULTILINE)
    assert int(num_images) > programs.NUM_IMAGES  # images of rarer shapes repeat
    (step,) = re.findall(r"no better AP in the last 1 evaluations: training ends at step (\d+)", output)
    assert programs.steps(tmp_path / "run") == list(range(int(step)))
    assert len({record["AP"] for record in _evaluations(tmp_path / "run")}) == 1
    assert list((tmp_path / "run" / "profile").rglob("*.trace.json.gz"))


def _evaluations(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record for record in records if record.get("event") == "evaluation"]


@pytest.mark.slow  # tests/detection/test_boxes_and_anchors.py has the quick one
@pytest.mark.parametrize("size", ["(100,)", "(64, 64, 64, 64)", "(100, 64)"])
def test_an_input_size_that_is_not_two_multiples_of_32_is_one_message(data, tmp_path, size):
    for program, extra in (("train.py", "--workdir=run"), ("eval.py", "--weights=yolox_nano")):
        finished = programs.run(program, [*programs.arguments(data, size), extra], tmp_path)
        assert finished.returncode == 1
        assert f"the input size is {size.strip('(,)').replace(', ', 'x')} (height x width)" in finished.stderr


@pytest.mark.slow
def test_an_argument_that_is_not_a_flag_is_refused(data, tmp_path):
    finished = programs.run("eval.py", [*programs.arguments(data), "--weights=x", "surplus"], tmp_path)
    assert finished.returncode != 0
    assert "surplus" in finished.stderr + finished.stdout


@pytest.mark.slow
def test_after_start_up_no_program_is_compiled_again(data, tmp_path):
    """With two image sizes, the switch to no-aug epochs, and evaluations in between."""
    changing = ["--config.multiscale.enabled=true", "--config.multiscale.every_steps=1"]
    changing += ["--config.multiscale.min_units=1", "--config.multiscale.max_units=2"]
    mosaic = ["--config.mosaic.prob=1", "--config.no_aug_epochs=2", "--config.warmup_epochs=0"]
    # --config.epochs is given twice: the last one counts.
    programs.run(
        "train.py", [*programs.arguments(data), *changing, *mosaic, "--config.epochs=5", "--workdir=run"], tmp_path, 0
    )
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    counts = [record["num_programs"] for record in records if "num_programs" in record]
    assert len(counts) == 15
    assert counts == sorted(counts)
    assert counts[-1] == 4  # the update, the gradients at two sizes, and evaluation
