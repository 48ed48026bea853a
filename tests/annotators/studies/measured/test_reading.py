"""Reading traces: whatever is wrong with a file is one clear line, and no file is in memory whole."""

import gzip
import json
import tracemalloc

import pytest

from fxmeter import annotate, prefill
from fxmeter.annotators.studies.measured.laid_over import lay_over
from fxmeter.annotators.studies.measured.traces.events import LONGEST_EVENT, PIECE, events_of
from fxmeter.annotators.studies.measured.traces.reading import read_trace
from fxmeter.models.errors import FxmeterError, ScenarioError, TraceFileError
from tests.annotators.studies.measured.real import BATCH, PROMPT, model_of, real_run
from tests.tracer import tiny

OP = {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "pid": 1, "tid": 1, "ts": 1, "dur": 2, "args": {}}


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    """The trace of a real prefill."""
    path = tmp_path_factory.mktemp("trace") / "run.json"
    real_run("llama", "sdpa", "prefill").save(path)
    return path


def test_what_is_wrong_with_a_file_is_said_in_a_line(trace, tmp_path):
    text = trace.read_text()
    zipped = gzip.compress(text.encode())
    cases = {
        "cut.json": (text[: len(text) // 2], "is cut off or broken after [0-9,]+ events"),
        "cut.json.gz": (zipped[: len(zipped) // 2], "compressed file is cut off or broken"),
        "report.json": (json.dumps({"schema_version": 2}), "is no Chrome trace"),
        "words.txt": ("once upon a time", "is no Chrome trace"),
        "empty.json": ("", "is no Chrome trace"),
        "pickle.pt": (b"\x80\x04\x95\x00", "is no Chrome trace"),
        "other.json": (json.dumps({"traceEvents": [{"ph": "X", "name": "frame", "ts": 1, "dur": 2}]}), "without ops"),
        "odd.json": (json.dumps({"traceEvents": [{**OP, "dur": "long"}]}), "event 'aten::mm' is none of a profiler"),
        "list.json": (json.dumps({"traceEvents": [{**OP, "args": {"Input Dims": 7}}]}), "is none of a profiler"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(TraceFileError, match=message) as error:
            read_trace(tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(TraceFileError, match="No such file"):
        read_trace(tmp_path / "nowhere.json")
    with pytest.raises(TraceFileError, match="Is a directory"):
        read_trace(tmp_path)


def test_a_trace_of_something_else_is_refused(trace):
    model = model_of("llama", "sdpa")
    with pytest.raises(TraceFileError, match=f"no pass in it .*it has batch {BATCH}, {PROMPT} new tokens after 0"):
        lay_over(_priced(model, PROMPT + 1), trace)
    with pytest.raises(TraceFileError, match=r"no pass in it is of this model"):
        lay_over(_priced(model_of("qwen3_moe", "sdpa"), PROMPT), trace)
    with pytest.raises(TraceFileError, match=r"no pass in it is of this model"):
        lay_over(_priced(tiny.real_model(tiny.LLAMA), PROMPT), trace)
    with pytest.raises(ScenarioError, match="fold=False"):
        lay_over(annotate(model, prefill(PROMPT, batch=BATCH), fold=True), trace)


def _priced(model, length):
    return annotate(model, prefill(length, batch=BATCH), attention="flash", fold=False)


def test_a_trace_without_ranges_and_of_other_lengths_is_refused_or_doubted(trace, tmp_path):
    text = json.loads(trace.read_text())
    text["traceEvents"] = [event for event in text["traceEvents"] if event.get("cat") != "user_annotation"]
    plain = tmp_path / "plain.json"
    plain.write_text(json.dumps(text))
    with pytest.raises(TraceFileError, match=r"at best [0-9]+% of the prediction is found in one"):
        lay_over(_priced(model_of("llama", "sdpa"), PROMPT - 1), plain)
    for event in text["traceEvents"]:
        event.get("args", {}).pop("Input Dims", None)
    plain.write_text(json.dumps(text))
    (doubt,) = lay_over(_priced(model_of("llama", "sdpa"), PROMPT), plain).warnings
    assert "no shapes" in doubt


def test_an_older_trace_and_a_bare_list_of_events_are_read(tmp_path):
    path = tmp_path / "list.json"
    path.write_text(json.dumps([{**OP, "cat": "Operator", "args": {"Input dims": [[2, 3], [3, 4], []]}}]))
    found = read_trace(path)
    assert found.sizes.values == [((2, 3), (3, 4))]
    assert list(found.duration) == [2000]


def test_times_keep_every_nanosecond(tmp_path):
    path = tmp_path / "late.json"
    path.write_text(json.dumps({"traceEvents": [OP]}).replace('"ts": 1,', '"ts": 4885187340843012.995,'))
    assert list(read_trace(path).start) == [4885187340843012995]


def test_a_large_file_is_never_in_memory_whole(tmp_path):
    noise = json.dumps({**OP, "cat": "python_function", "name": "forward", "args": {"stack": "y" * 400}})
    path = tmp_path / "large.json"
    with path.open("w") as file:
        file.write('{"traceEvents": [')
        for _ in range(60):
            file.write(f"{noise}, " * 1000)
        file.write(json.dumps(OP) + "]}")
    assert path.stat().st_size > 25 * PIECE
    tracemalloc.start()
    found = read_trace(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found.kind) == 1
    assert most < 6 * PIECE


def test_an_event_or_a_head_without_end_is_not_read_on_for_ever(tmp_path):
    path = tmp_path / "endless.json"
    path.write_text('{"traceEvents": [{"name": "' + "x" * (LONGEST_EVENT + 2 * PIECE))
    with pytest.raises(FxmeterError, match="is cut off or broken after 0 events"):
        list(events_of(path))
    path.write_text('{"x": "' + "x" * (LONGEST_EVENT // 2))
    with pytest.raises(FxmeterError, match="is no Chrome trace"):
        list(events_of(path))
