"""Export, releases, variants, the gate and rounds: what is written is what was trained, and nothing worse gets out."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from mmrec_stream.contracts.behaviour import Click, EventType, encode_event
from mmrec_stream.contracts.catalogue import CatalogueItem, encode_item
from mmrec_stream.contracts.releases import decode_release
from mmrec_stream.data.dataset import DAY_MS, Dataset, Interactions
from mmrec_stream.errors import UserError
from mmrec_stream.evaluation import metrics
from mmrec_stream.kafka.clients import BatchProducer
from mmrec_stream.kafka.reader import read
from mmrec_stream.operations.rollouts import announce_release
from mmrec_stream.ranking.scorer import Scorer
from mmrec_stream.ranking.types import blank_features
from mmrec_stream.releases import Expected, list_releases, load_release, verify_release
from mmrec_stream.releases.folder import GRAPHS
from mmrec_stream.settings import Settings
from mmrec_stream.simulator import Shoppers, make_shop
from mmrec_stream.topics import Topics
from model_export.cli import compress, train
from model_export.compress import compress_release, measure, quantised
from model_export.export import RANKER_SHAPES, export_ranker, random_inputs, serialize
from model_export.gate import judge_release, verdict
from model_export.hybrid import case_features
from model_export.ranker import BUCKETS, Ranker, Request, Table
from model_export.release import build_release, repurchases
from model_export.rounds import interval_seconds, keep_training, release_split, train_round
from model_export.users import UserModel
from tests.tiny import NOW, TINY, tiny_dataset, tiny_model, tiny_release


def test_a_release_serves_what_was_trained() -> None:
    """The scorer's lists over the exported graphs are the trained model's own best items."""
    dataset, model = tiny_dataset(), tiny_model()
    cases = release_split(dataset).validation
    served = judge_release(Scorer.load(tiny_release(), provider="cpu", threads=1), dataset, cases)
    order = np.random.default_rng(0).permutation(dataset.items)
    excluded = case_features(cases, dataset, model.inputs, model.config).excluded
    lists = metrics.top_lists(model.score(cases), 10, [rows[rows >= 0] for rows in excluded], order)
    trained = metrics.ndcg(metrics.hits(lists, cases.targets), cases.targets, 10)
    assert served.mean() > 0.05
    assert np.isclose(served.mean(), trained.mean(), atol=0.005)


def test_the_manifest_says_what_the_release_is() -> None:
    manifest, model = verify_release(tiny_release()), tiny_model()
    assert manifest.version == "tiny-1"
    assert manifest.opset == 20
    assert manifest.encoders == {"attributes": "attributes", "cnn": "cnn", "id": "id", "lstm": "lstm"}
    assert {bucket.min_history: bucket.alpha for bucket in manifest.alpha} == pytest.approx(model.alpha)
    assert manifest.data.items == len(load_release(tiny_release()).item_ids) == tiny_dataset().items
    ranker = manifest.graphs["ranker"]
    assert {tensor.name for tensor in ranker.inputs} == set(RANKER_SHAPES)
    assert [tensor.name for tensor in ranker.outputs] == ["rows", "scores", "p_user", "p_item", "alpha"]
    shapes = {tensor.name: tensor.shape for tensor in ranker.inputs}
    assert shapes["history_rows"] == ["batch", "length"]
    assert shapes["item_vectors"] == ["items", 16]


def test_a_release_knows_after_how_long_items_are_bought_again(tmp_path: Path) -> None:
    model = tiny_model()
    dataset = model.dataset
    users = np.repeat(np.arange(20), 2)
    times = NOW - np.tile([12, 0], 20) * DAY_MS
    kinds = np.full(40, EventType.PURCHASE, dtype=np.int8)
    log = dataset.interactions.where(dataset.interactions.types != EventType.PURCHASE)
    bought = Interactions.of(
        np.r_[log.users, users],
        np.r_[log.items, np.full(40, 3)],
        np.r_[log.times, times],
        np.r_[log.types, kinds],
        np.r_[log.ratings, np.zeros(40)],
    )
    timed = replace(dataset, interactions=bought, timed=True)
    scorer = Scorer.load(build_release(replace(model, dataset=timed), tmp_path, NOW, "again"), provider="cpu")
    key = np.array([scorer.table.keys[3]])
    assert scorer.cycles is not None
    assert scorer.cycles.of_items(key, 0.0).tolist() == [12 * DAY_MS / 1000]
    assert repurchases(replace(model, dataset=replace(timed, timed=False))) == {}


def test_the_graphs_tell_nothing_of_where_they_were_made() -> None:
    for name in GRAPHS:
        content = (tiny_release() / name).read_bytes()
        model = onnx.load_from_string(content)
        assert not model.metadata_props
        assert all(not node.metadata_props and not node.doc_string for node in model.graph.node)
        assert b".py" not in content
        assert str(Path.cwd()).encode() not in content


def test_the_same_model_gives_the_same_files(tmp_path: Path) -> None:
    again = build_release(tiny_model(), tmp_path, NOW, "tiny-1")
    for name in load_release(tiny_release()).manifest.files:
        assert (again / name).read_bytes() == (tiny_release() / name).read_bytes(), name


@pytest.mark.parametrize("user_encoder", ["gru", "attention"])
def test_an_export_equals_pytorch_at_any_size(user_encoder: str) -> None:
    torch.manual_seed(1)
    config = replace(TINY, user_encoder=user_encoder)  # type: ignore[arg-type]
    ranker = Ranker(UserModel(config, 5, 6), config).eval()
    for weight in ranker.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    session = ort.InferenceSession(
        serialize(export_ranker(ranker, 16, 8, 20).ranker), providers=["CPUExecutionProvider"]
    )
    names = [*Request._fields, *Table._fields]
    rng = np.random.default_rng(7)
    for shape in ((1, 1, 10, 0), (7, 20, 33, 5)):
        inputs = random_inputs(rng, shape, 16, 8, ranker)
        for k in (1, 10):
            found = session.run(None, inputs | {"k": np.array([k])})
            with torch.no_grad():
                expected = ranker(*(torch.from_numpy(inputs[name]) for name in names), k=k)
            assert np.allclose(found[1], expected[1].numpy(), rtol=1e-3, atol=1e-4)
            assert found[0].shape == (shape[0], k)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_every_alpha_is_valid(alpha: float) -> None:
    torch.manual_seed(0)
    ranker = Ranker(UserModel(TINY, 5, 6), TINY).eval()
    ranker.set_alphas([alpha] * len(BUCKETS))
    inputs = random_inputs(np.random.default_rng(3), (6, 9, 40, 0), 16, 8, ranker)
    tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
    request = Request(*(tensors[name] for name in Request._fields))
    table = Table(*(tensors[name] for name in Table._fields))
    with torch.no_grad():
        rows, scores, p_user, p_item, alphas, *_ = ranker(*request, *table, k=8)
        users = ranker.user_vectors(request, table.item_vectors)
        all_user, all_item, _ = ranker.distributions(request, users, table)
    assert torch.allclose(alphas, torch.full((6,), alpha), atol=1e-5)
    mixed = alpha * all_user + (1 - alpha) * all_item
    assert torch.allclose(scores, mixed.gather(1, rows), atol=1e-5)
    assert torch.allclose(scores, torch.topk(mixed * table.available, 8).values, atol=1e-5)
    assert torch.allclose(p_user, all_user.gather(1, rows), atol=1e-6)
    if 0 < alpha < 1:
        assert torch.allclose(p_item, all_item.gather(1, rows), atol=1e-5)


@pytest.mark.parametrize("compression", ["fp16", "int8"])
def test_a_variant_is_smaller_or_quantised_and_nearly_as_good(tmp_path: Path, compression: str) -> None:
    dataset = tiny_dataset()
    cases = release_split(dataset).validation
    variant = compress_release(tiny_release(), compression, tmp_path)  # type: ignore[arg-type]
    manifest = verify_release(variant)
    assert manifest.compression == compression
    assert manifest.version == f"tiny-1-{compression}"
    before, after = measure(tiny_release(), dataset, cases), measure(variant, dataset, cases)
    assert after.ndcg > before.ndcg - 0.03
    lists, alike = after.overlap(before)
    assert lists > 0.85
    assert alike > 0.85
    assert before.overlap(before) == (1.0, 1.0)
    for threads in (2, 4):
        assert Scorer.load(variant, provider="cpu", threads=threads).version == manifest.version
    assert after.graph_bytes["item_encoder.onnx"] < 0.8 * before.graph_bytes["item_encoder.onnx"]
    if compression == "int8":
        graph = onnx.load(variant / "ranker.onnx").graph
        assert any(node.op_type in ("MatMulInteger", "DynamicQuantizeMatMul") for node in graph.node)
    with pytest.raises(UserError, match="give a release of fp32"):
        compress_release(variant, "int8", tmp_path)


def test_int8_products_are_right_where_all_values_are_the_largest() -> None:
    """Whole codes all the way, so that int8 loses nothing; pairs beyond 16 bits would lose half of the result."""
    inner, outer = 64, 16
    weights = {
        "product": np.ones((inner, outer), np.float32),
        "layer": -np.ones((outer, inner), np.float32),
        "bias": np.zeros(outer, np.float32),
        "in": np.full((1, 4 * outer, inner), 1 / inner, np.float32),
        "again": np.full((1, 4 * outer, outer), 1 / outer, np.float32),
    }
    tensor, kind = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("MatMul", ["x", "product"], ["by_product"], name="a"),
            onnx.helper.make_node("Gemm", ["x", "layer", "bias"], ["by_layer"], name="b", transB=1),
            onnx.helper.make_node("Unsqueeze", ["x", "first"], ["steps"], name="c"),
            onnx.helper.make_node("LSTM", ["steps", "in", "again"], ["by_lstm"], name="d", hidden_size=outer),
        ],
        "largest",
        [tensor("x", kind, ["batch", inner])],
        [
            tensor("by_product", kind, ["batch", outer]),
            tensor("by_layer", kind, ["batch", outer]),
            tensor("by_lstm", kind, ["batch", 1, 1, outer]),
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
        + [onnx.numpy_helper.from_array(np.array([1]), "first")],
    )
    full = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(full)
    variant = quantised(onnx.ModelProto.FromString(full.SerializeToString()))
    assert not {node.op_type for node in variant.graph.node} & {"MatMul", "Gemm", "LSTM"}
    for value in (1.0, -1.0):
        inputs = {"x": np.full((5, inner), value, np.float32)}
        whole, coded = (
            ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, inputs)
            for model in (full, variant)
        )
        for expected, got in zip(whole, coded, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-2)


def test_int8_weights_leave_room_for_pairs_of_products(tmp_path: Path) -> None:
    """Without VNNI, two products of an unsigned byte and a weight are added in 16 bits."""
    variant = compress_release(tiny_release(), "int8", tmp_path)
    factors = 0
    for name in GRAPHS:
        graph = onnx.load(variant / name).graph
        stored = {weight.name: onnx.numpy_helper.to_array(weight) for weight in graph.initializer}
        for node in graph.node:
            if node.op_type in ("MatMulInteger", "DynamicQuantizeLSTM"):
                coded = [stored[part] for part in node.input[1:3] if part in stored and stored[part].ndim > 1]
                factors += len(coded)
                assert all(2 * 255 * int(np.abs(part.astype(int)).max()) <= 32_767 for part in coded)
    assert factors > 3


def test_a_worse_candidate_is_refused_and_noise_is_not() -> None:
    rng = np.random.default_rng(0)
    current = rng.random(2_000)
    assert verdict(current, None).accepted
    assert verdict(current + 0.01, current).accepted
    assert verdict(current + rng.normal(0, 0.3, 2_000), current).current == pytest.approx(current.mean())
    worse = verdict(current - 0.02 + rng.normal(0, 0.1, 2_000), current)
    assert not worse.accepted
    assert "0.4" in worse.reason


def test_what_a_release_is_judged_on_came_after_what_it_learned_from() -> None:
    split = release_split(tiny_dataset())
    assert split.train.times.max() < split.validation.times.min()
    assert split.validation.times.max() < split.test.times.min(), "the gate's cases are tuned on by nobody"
    for cases in (split.validation, split.test):
        assert len(cases)
        for case in range(len(cases)):
            assert cases.targets[case][0] not in cases.history(case)
    nothing = replace(tiny_dataset(), interactions=tiny_dataset().interactions.where(np.arange(3)))
    with pytest.raises(UserError, match="too few to train on"):
        release_split(nothing)


def test_a_round_puts_a_release_into_the_store_and_a_worse_one_is_thrown_away(tmp_path: Path) -> None:
    """With a log alone, as a catalogue is no condition; ids are all that such a model knows."""
    dataset = replace(tiny_dataset(), catalogue=None)
    good = train_round(dataset, tmp_path, TINY)
    assert good.path is not None
    assert [path.name for path in list_releases(tmp_path)] == [good.path.name]
    assert good.verdict.current is None
    scorer = Scorer.load(good.path, provider="cpu", threads=1)
    (row,) = scorer.add_items([CatalogueItem(item_id="unseen", title="red boots")])
    assert not scorer.table.vectors[row].any()
    lists = scorer.run(replace(blank_features(1, 3), history_rows=np.full((1, 3), row)), 5)
    assert np.isfinite(lists.scores).all()
    assert (lists.scores > 0).all()
    # A single pass at a tiny rate without p_item's neighbours learns next to nothing.
    poor = replace(TINY, epochs=1, learning_rate=1e-6, neighbours=1, recent=1, factors=False)
    bad = train_round(dataset, tmp_path, poor)
    assert bad.path is None
    assert not bad.verdict.accepted
    assert [path.name for path in tmp_path.iterdir()] == [good.path.name]


def test_times_between_rounds() -> None:
    assert [interval_seconds(text) for text in ("90s", "15m", "2h", "0.5m")] == [90, 900, 7200, 30]
    for text in ("15", "m", "-3m", "0s", "1d"):
        with pytest.raises(UserError, match="give a number and a unit"):
            interval_seconds(text)


def test_rounds_go_on_after_failures_and_only_with_new_events() -> None:
    dataset = tiny_dataset()
    other = replace(dataset, interactions=dataset.interactions.where(np.arange(50)))
    reads: Iterator[Dataset | Exception] = iter(
        [UserError("no broker"), dataset, dataset, other, other, ValueError("broken")]
    )
    trained: list[int] = []
    told: list[str] = []

    def read_next() -> Dataset:
        now = next(reads)
        if isinstance(now, Exception):
            raise now
        return now

    def one_round(data: Dataset) -> None:
        trained.append(len(data.interactions))
        if data is other:
            raise UserError("the new model is worse")

    keep_training(read_next, one_round, told.append, 60, rounds=6, sleep=lambda s: None)
    assert trained == [len(dataset.interactions), 50]
    assert "no broker" in told[0]
    assert "no new events" in told[1]
    assert "worse" in told[2]
    assert "no new events" in told[3], "what failed is not tried again on the same events"
    assert "ValueError: broken" in told[4]


def command(*args: object) -> Result:
    """`mmrec train ARGS…`, on one terminal width and CPU thread."""
    app = typer.Typer()
    app.command()(train)
    return CliRunner().invoke(app, [*map(str, args), "--epochs", "1", "--dim", "16"], env={"COLUMNS": "160"})


def write_log(folder: Path) -> Path:
    folder.mkdir()
    shoppers = Shoppers(make_shop(40, seed=1), 60, seed=1)
    (folder / "catalogue.jsonl").write_bytes(b"\n".join(map(encode_item, shoppers.shop)))
    (folder / "events.jsonl").write_bytes(b"\n".join(map(encode_event, shoppers.past(3.0, NOW))))
    return folder


def test_the_command_trains_from_a_folder(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log")
    result = command("--data", log, "--out", tmp_path / "releases")
    assert result.exit_code == 0, result.output
    (release,) = list_releases(tmp_path / "releases")
    assert str(release) in result.stdout
    assert "NDCG@10" in result.stderr
    for wrong in ((), ("--data", log, "--from", "kafka"), ("--data", tmp_path), ("--data", log, "--every", "soon")):
        assert isinstance(command(*wrong).exception, UserError)


def test_the_command_compresses_and_shows_what_it_costs(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(compress)
    log = write_log(tmp_path / "log")
    arguments = [str(tiny_release()), "--data", str(log), "--out", str(tmp_path), "--to"]
    result = CliRunner().invoke(app, [*arguments, "fp16"], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "tiny-1-fp16")
    manifest = verify_release(tmp_path / "tiny-1-fp16")
    assert manifest.compression == "fp16"
    assert manifest.metrics["variant top-20 overlap with fp32"] > 0.95
    assert manifest.metrics["variant ranker bytes"] == manifest.files["ranker.onnx"].size
    assert {path.name for path in tmp_path.iterdir()} == {"log", "tiny-1-fp16"}
    for told in ("ranker.onnx", "item_encoder.onnx", "NDCG@10", "64 at once", "overlap"):
        assert told in result.stderr
    assert isinstance(CliRunner().invoke(app, [*arguments, "int4"]).exception, UserError)


@pytest.mark.broker
def test_the_command_trains_from_topics_and_announces(
    settings: Settings, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MMREC_PREFIX", settings.prefix)
    monkeypatch.setenv("MMREC_DATA_DIR", str(settings.data_dir))
    shoppers = Shoppers(make_shop(40, seed=1), 60, seed=1)
    with BatchProducer(settings) as producer:
        for item in shoppers.shop:
            producer.send(topics.catalogue, encode_item(item), key=item.item_id.encode())
        for event in shoppers.past(3.0, NOW):
            producer.send(topics.of_event(event), encode_event(event), key=event.user_id.encode())
        producer.send(topics.clicks, b"{not an event", key=b"u")
        producer.send(topics.clicks, encode_event(Click(user_id="late", item_id="unlisted", ts=NOW)), key=b"late")
    result = command("--from", "kafka", "--bootstrap", settings.bootstrap)
    assert result.exit_code == 0, result.output
    (release,) = list_releases(settings.releases_dir)
    (message,) = read(settings, topics.releases)
    told = decode_release(message.value() or b"")
    assert (told.version, told.uri) == (release.name, release.resolve().as_uri())
    assert message.key() == release.name.encode()
    scorer = Scorer.load(release, provider="cpu", expected=Expected.of(told, None))
    assert "unlisted" in scorer.table.ids


@pytest.mark.broker
def test_a_release_that_does_not_verify_is_not_announced(settings: Settings, topics: Topics, tmp_path: Path) -> None:
    path = Path(shutil.copytree(tiny_release(), tmp_path / "broken"))
    (path / "ranker.onnx").write_bytes(b"")
    with pytest.raises(UserError, match=r"ranker\.onnx"):
        announce_release(settings, path, stage="live")
    assert list(read(settings, topics.releases)) == []


def test_manifests_are_readable_by_people() -> None:
    text = (tiny_release() / "manifest.json").read_text()
    assert text.count("\n") > 50
    assert json.loads(text)["user_encoder"] == "gru"
