"""Records test/vectors/training/*.json: optimizer, gradient clipping and schedules as torch and transformers do them.

    python scripts/record_training.py

Floats are written as 32-bit patterns, so that comparisons can be bit for bit.
"""
import dataclasses
import json
import pathlib
import platform
import struct
import tempfile
from types import SimpleNamespace

import numpy as np
import torch
import transformers
from transformers import get_scheduler
from transformers.trainer_callback import EarlyStoppingCallback, TrainerState
from transformers.trainer_utils import rotate_checkpoints

OUT = pathlib.Path(__file__).parent.parent / "test" / "vectors" / "training"
SEED = 20260
torch.set_num_threads(1)


def bits(tensor):
    return tensor.detach().numpy().astype("<f4").view("<u4").flatten().tolist()


def exact_sqrt(self):
    """Correctly rounded; torch's own on CPU is Intel MKL's, which is not (up to 0.75 ulp)."""
    return torch.from_numpy(np.sqrt(self.detach().numpy()))


CASES = [
    # name, shapes, steps, kwargs, gradient scale(step), zero gradients at steps
    ("defaults", [[3, 7], [5]], 24, dict(lr=1e-3), lambda t: 1.0, ()),
    ("no weight decay", [[4, 8]], 24, dict(lr=2e-4, weight_decay=0.0), lambda t: 10.0 ** (t % 5 - 4), ()),
    ("large weight decay, high lr", [[37]], 24, dict(lr=1e-2, weight_decay=0.3), lambda t: 1.0, ()),
    ("eps 1e-6, betas 0.8 0.95", [[2, 16], [9]], 24, dict(lr=1e-3, eps=1e-6, betas=(0.8, 0.95)), lambda t: 1e-3, ()),
    ("eps 0.1", [[17]], 20, dict(lr=1e-3, eps=0.1), lambda t: 1e-2, ()),
    ("beta1 0.3: lerp from the gradient", [[33]], 20, dict(lr=1e-3, betas=(0.3, 0.99)), lambda t: 1.0, ()),
    ("beta1 0", [[8]], 20, dict(lr=1e-3, betas=(0.0, 0.9)), lambda t: 1.0, ()),
    ("zero gradients", [[16]], 20, dict(lr=1e-3, weight_decay=0.1), lambda t: 1.0, (0, 1, 5, 6, 7, 19)),
    ("tiny gradients", [[16]], 20, dict(lr=1e-3), lambda t: 1e-22, ()),
    ("changing lr", [[11, 3]], 20, dict(lr=1e-3), lambda t: 1.0, ()),
    ("long", [[4]], 200, dict(lr=1e-3), lambda t: 0.1, ()),
]


def adamw_run(shapes, steps, kwargs, scale, zero_at, *, changing, exact):
    generator = torch.Generator().manual_seed(SEED)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in shapes]
    initial = [bits(p) for p in params]
    optimizer = torch.optim.AdamW(params, foreach=False, **kwargs)
    record = []
    original = torch.Tensor.sqrt
    if exact:
        torch.Tensor.sqrt = exact_sqrt
    try:
        for t in range(steps):
            lr = kwargs["lr"] * (1 - t / steps) if changing else kwargs["lr"]
            optimizer.param_groups[0]["lr"] = lr
            for p in params:
                g = torch.randn(p.shape, generator=generator) * scale(t)
                p.grad = torch.zeros_like(g) if t in zero_at else g
            grads = [bits(p.grad) for p in params]
            optimizer.step()
            record.append(dict(lr=lr, grads=grads, params=[bits(p) for p in params]))
    finally:
        torch.Tensor.sqrt = original
    moments = [
        dict(exp_avg=bits(optimizer.state[p]["exp_avg"]), exp_avg_sq=bits(optimizer.state[p]["exp_avg_sq"]))
        for p in params
    ]
    return initial, record, moments


def adamw():
    cases = []
    for name, shapes, steps, kwargs, scale, zero_at in CASES:
        changing = name == "changing lr"
        initial, record, moments = adamw_run(shapes, steps, kwargs, scale, zero_at, changing=changing, exact=True)
        _, plain, plain_moments = adamw_run(shapes, steps, kwargs, scale, zero_at, changing=changing, exact=False)
        assert moments == plain_moments
        for step, other in zip(record, plain):
            step["paramsTorchSqrt"] = other["params"]
        group = torch.optim.AdamW([torch.zeros(1)], **kwargs).defaults
        cases.append(
            dict(
                name=name,
                shapes=shapes,
                options=dict(eps=group["eps"], betas=list(group["betas"]), weightDecay=group["weight_decay"]),
                initial=initial,
                steps=record,
                moments=moments,
            )
        )
    return cases


def clip():
    generator = torch.Generator().manual_seed(SEED)
    cases = []
    for shapes, scale, max_norm in [
        ([[3, 4]], 1.0, 1.0),
        ([[64, 33], [7], [16, 64]], 0.5, 1.0),
        ([[64, 33], [7]], 1e-4, 1.0),
        ([[200], [300]], 1.0, 0.01),
        ([[5], [6]], 1e4, 10.0),
        ([[5]], 0.0, 1.0),
        ([[2000]], 1e-3, 0.05),
    ]:
        grads = [torch.randn(s, generator=generator) * scale for s in shapes]
        params = [torch.nn.Parameter(torch.zeros(s)) for s in shapes]
        for p, g in zip(params, grads):
            p.grad = g.clone()
        norm = torch.nn.utils.clip_grad_norm_(params, max_norm)
        cases.append(
            dict(shapes=shapes, maxNorm=max_norm, grads=[bits(g) for g in grads], norm=norm.item(),
                 clipped=[bits(p.grad) for p in params])
        )
    return cases


def schedules():
    cases = []
    for name in ["constant", "constant_with_warmup", "linear", "cosine"]:
        for lr, warmup, steps in [(2e-4, 0, 20), (1e-3, 5, 20), (3e-4, 1, 7), (1.0, 10, 10), (1.0, 12, 10), (5e-5, 0, 1)]:
            optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
            scheduler = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=steps)
            rates = []
            for _ in range(steps + 3):
                rates.append(optimizer.param_groups[0]["lr"])
                optimizer.step()
                scheduler.step()
            cases.append(dict(type=name, learningRate=lr, warmupSteps=warmup, trainingSteps=steps, rates=rates))
    ratios = []
    for steps, ratio in [(100, 0.03), (10, 0.1), (7, 0.5), (1, 0.99), (33, 0.06)]:
        args = transformers.TrainingArguments(output_dir="unused", warmup_steps=ratio, use_cpu=True, report_to=[])
        ratios.append(dict(trainingSteps=steps, warmupRatio=ratio, warmupSteps=args.get_warmup_steps(steps)))
    return dict(schedules=cases, ratios=ratios)


def decay_names():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in ["lora_A", "lora_B", "input_layernorm", "norm", "final_norm", "normal", "ln_f", "RMSNorm_1"]:
                self.add_module(name, torch.nn.Linear(2, 2))

    model = torch.nn.ModuleDict(dict(base=Model(), q_norm=torch.nn.Linear(2, 2), normed=torch.nn.Linear(2, 2)))
    decayed = set(transformers.Trainer.get_decay_parameter_names(None, model))
    return {name: name in decayed for name, _ in model.named_parameters()}


def trainer_state():
    """The keys of a trainer_state.json that transformers writes."""
    path = pathlib.Path(tempfile.mkdtemp()) / "trainer_state.json"
    TrainerState(epoch=0.5, global_step=3, max_steps=6, log_history=[{"loss": 1.0, "step": 3, "epoch": 0.5}]).save_to_json(path)
    return json.loads(path.read_text())


def early_stopping():
    """Where transformers' EarlyStoppingCallback stops, with the trainer's order: callback first, then best_metric."""
    cases = []
    for patience, min_delta, losses in [
        (1, 0.0, [3, 2, 1, 1, 0]),
        (2, 0.0, [3, 2, 2.5, 2.2, 1]),
        (2, 0.0, [3, 4, 2, 4, 1, 5, 6]),
        (3, 0.5, [3, 2.75, 2.5, 2.25, 2, 1]),
        (2, 0.5, [3, 2.75, 2.0, 1.75, 1.5]),
        (1, 0.25, [1, 0.75, 0.5]),
        (2, 0.0, [1, 1, 1]),
        (5, 0.0, [2, 1]),
    ]:
        args = SimpleNamespace(metric_for_best_model="loss", greater_is_better=False, save_strategy="no")
        trainer = SimpleNamespace(args=args, state=SimpleNamespace(best_metric=None, global_step=0))
        control = SimpleNamespace(should_training_stop=False)
        callback = EarlyStoppingCallback(patience, min_delta)
        stops_at = None
        for i, loss in enumerate(losses):
            metrics = {"eval_loss": float(loss)}
            callback.on_evaluate(args, trainer.state, control, metrics)
            transformers.Trainer._determine_best_metric(trainer, metrics, None)
            if control.should_training_stop and stops_at is None:
                stops_at = i
        cases.append(dict(patience=patience, minDelta=min_delta, losses=losses, stopsAt=stops_at, best=trainer.state.best_metric))
    return cases


def rotation():
    cases = []
    for steps, limit, best in [
        ([1, 2, 3], None, None), ([1, 2, 3], 2, None), ([9, 10, 100], 1, None), ([1, 2, 3], 1, 1), ([1, 2, 3], 1, 3),
        ([1, 2, 3, 4, 5], 3, 2), ([1, 2, 3, 4, 5], 3, 1), ([1, 2], 5, 1), ([], 1, None), ([5, 10, 15, 20], 2, 10),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            for step in steps:
                pathlib.Path(folder, f"checkpoint-{step}").mkdir()
            best_path = None if best is None else f"{folder}/checkpoint-{best}"
            rotate_checkpoints(folder, limit, best_path)
            left = sorted(int(p.name.split("-")[1]) for p in pathlib.Path(folder).iterdir())
        cases.append(dict(steps=steps, limit=limit, best=best, left=left))
    return cases


def training_arguments():
    """Defaults of TrainingArguments that are plain values."""
    values = {}
    for field in dataclasses.fields(transformers.TrainingArguments):
        if field.default is not dataclasses.MISSING and isinstance(field.default, (int, float, str, bool)):
            values[field.name] = field.default
    return values


def tensorboard():
    """Event file records, by Google's protobuf with the messages of tensorflow's event.proto and summary.proto."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    F = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="event.proto", package="tensorflow", syntax="proto3")

    def message(name, *fields, parent=None):
        m = (parent.nested_type if parent else file.message_type).add(name=name)
        for field, number, kind, repeated, of in fields:
            f = m.field.add(name=field, number=number, type=kind, label=F.LABEL_REPEATED if repeated else F.LABEL_OPTIONAL)
            if of:
                f.type_name = of
        return m

    event = message(
        "Event",
        ("wall_time", 1, F.TYPE_DOUBLE, False, None),
        ("step", 2, F.TYPE_INT64, False, None),
        ("file_version", 3, F.TYPE_STRING, False, None),
        ("summary", 5, F.TYPE_MESSAGE, False, ".tensorflow.Summary"),
        ("session_log", 7, F.TYPE_MESSAGE, False, ".tensorflow.SessionLog"),
    )
    event.oneof_decl.add(name="what")
    for f in event.field[2:]:
        f.oneof_index = 0
    message("SessionLog", ("status", 1, F.TYPE_INT32, False, None))  # an enum is a varint too
    summary = message("Summary", ("value", 1, F.TYPE_MESSAGE, True, ".tensorflow.Summary.Value"))
    message("Value", ("tag", 1, F.TYPE_STRING, False, None), ("simple_value", 2, F.TYPE_FLOAT, False, None), parent=summary)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    Event = message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Event"))

    def crc32c(data):  # bit by bit; checked against RFC 3720
        crc = 0xFFFFFFFF
        for byte in data:
            crc ^= byte
            for _ in range(8):
                crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
        return crc ^ 0xFFFFFFFF

    assert crc32c(b"123456789") == 0xE3069283

    def masked(data):
        crc = crc32c(data)
        return struct.pack("<I", (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF)

    def record(**fields):
        data = Event(**fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        return (length + masked(length) + data + masked(data)).hex()

    start = record(wall_time=1700000000.25, file_version="brain.Event:2")
    values = [dict(tag="train/loss", simple_value=2.5), dict(tag="train/learning_rate", simple_value=1e-4), dict(tag="ä/ß", simple_value=-0.5)]
    return dict(
        fileStart=start,
        resume=start + record(wall_time=1700000000.25, step=42, session_log=dict(status=1)),
        scalars=record(wall_time=1700000001.5, step=300, summary=dict(value=values)),
    )


def write(name, value):
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


write("adamw.json", adamw())
write("clip-grad-norm.json", clip())
write("schedules.json", schedules())
write("decay-names.json", decay_names())
write("tensorboard.json", tensorboard())
write("early-stopping.json", early_stopping())
write("rotation.json", rotation())
write("training-arguments.json", training_arguments())
write("trainer-state.json", trainer_state())
(OUT / "manifest.json").write_text(
    json.dumps(
        dict(
            script="scripts/record_training.py",
            seed=SEED,
            python=platform.python_version(),
            torch=torch.__version__,
            transformers=transformers.__version__,
            cpu=torch.backends.cpu.get_cpu_capability(),
        ),
        indent=2,
    )
    + "\n"
)
