"""The LoRA bank: active = merged, switching, weights, compiled graphs."""

import pytest
import torch
from torch import nn

from meta_animator.errors import UserError
from meta_animator.models.control import MetaControlNet
from meta_animator.models.lora import LoRABank, LoRALinear
from meta_animator.settings import TASKS
from meta_animator.weights import copy_strict, load_tensors, save_tensors
from tests import tiny


def run(control, dtype=torch.float32):
    latents, t, context = tiny.control_inputs()
    with torch.no_grad():
        down, mid = control(latents.to(dtype), t, context.to(dtype))
    return torch.cat([x.flatten() for x in (*down, mid)])


def merged(shared, lora, weight):
    """W + weight * up down."""
    names = [n.removesuffix(".lora_A.weight") for n in lora if n.endswith(".lora_A.weight")]
    added = {f"{n}.weight": weight * lora[f"{n}.lora_B.weight"] @ lora[f"{n}.lora_A.weight"] for n in names}
    return {name: weight.detach() + added.get(name, 0) for name, weight in shared.items()}


@pytest.mark.parametrize("weight", [1.0, 0.3])
def test_an_active_lora_equals_merged_weights(weight):
    control = tiny.tiny_control().double()
    control.bank.use({"seg": weight})
    active = run(control, torch.float64)
    control.bank.use(None)
    assert (active - run(control, torch.float64)).abs().max() > 1e-3
    copy_strict(control.base_state(), merged(control.base_state(), control.bank.state("seg"), weight), "merged")
    torch.testing.assert_close(run(control, torch.float64), active, rtol=0, atol=1e-8)


def test_several_weighted_loras_equal_their_merged_sum():
    control = tiny.tiny_control().double()
    weights = {"seg": 0.6, "dwpose": -0.2, "blurred": 1.0}
    control.bank.use(weights)
    active = run(control, torch.float64)
    control.bank.use(None)
    for task, weight in weights.items():
        copy_strict(control.base_state(), merged(control.base_state(), control.bank.state(task), weight), "merged")
    torch.testing.assert_close(run(control, torch.float64), active, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("rows", "added"), [(2, False), (3, True)])
def test_under_a_trained_weight_the_loras_have_the_gradients_of_the_formula(rows, added):
    """For many rows LoRAs are added to the weight there; y = W x + b + sum_k w_k up_k down_k x, term by term, says what is right.
    Products of 3 rows of 6 with 2 x 6 and 2 x 5 are more than those of 5 x 2 with 2 x 6."""
    layer = LoRALinear(nn.Linear(6, 5), 2, ["a", "b"]).double()
    for up in layer.up.values():
        nn.init.normal_(up)
    layer.active = tuple((layer.down[task], layer.up[task], w) for task, w in (("a", 1.0), ("b", 0.3)))
    x = torch.randn(1, rows, 6, dtype=torch.float64, requires_grad=True)
    assert layer.adds(x) == added
    wanted = x @ layer.base.weight.T + layer.base.bias
    for down, up, w in layer.active:
        wanted = wanted + w * (x @ down.T @ up.T)
    inputs, toward = [x, *layer.parameters()], torch.randn_like(wanted)
    found = layer(x)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)
    pairs = zip(torch.autograd.grad(found, inputs, toward), torch.autograd.grad(wanted, inputs, toward), strict=True)
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_every_linear_is_wrapped_and_no_other_layer():
    control = tiny.tiny_control()
    linears = {n for n, m in control.net.named_modules() if isinstance(m, nn.Linear)}
    assert linears == {f"{name}.base" for name in control.bank.layers}


def test_a_fresh_lora_is_off_and_its_down_has_the_published_spread():
    torch.manual_seed(0)
    layer = next(iter(LoRABank(nn.Sequential(nn.Linear(4000, 8)), 16, ["a"]).layers.values()))
    assert not layer.up["a"].any()
    assert abs(layer.down["a"].std().item() * 16 - 1) < 0.02


def test_switching_touches_neither_the_optimizer_nor_requires_grad():
    control = tiny.tiny_control()
    control.net.conv_in.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in control.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    before = [(n, id(p), p.requires_grad) for n, p in control.named_parameters()]
    groups = [[id(p) for p in g["params"]] for g in optimizer.param_groups]
    idle = {n: p.clone() for n, p in control.bank.state("blurred").items()}
    for task in ("dwpose", "seg", "dwpose"):
        control.bank.use(task)
        down, mid = control(*tiny.control_inputs())
        loss = sum(x.square().mean() for x in (*down, mid))
        loss.backward()
        for other in tiny.TASKS:
            grads = [p.grad for p in control.bank.parameters(other)]
            assert all(g is not None for g in grads) if other == task else all(g is None for g in grads)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state = dict(optimizer.state)
        control.bank.use("blurred")
        assert dict(optimizer.state) == state
    assert [(n, id(p), p.requires_grad) for n, p in control.named_parameters()] == before
    assert [[id(p) for p in g["params"]] for g in optimizer.param_groups] == groups
    assert all(torch.equal(p, idle[n]) for n, p in control.bank.state("blurred").items())
    for task, steps in (("dwpose", {2}), ("seg", {1}), ("blurred", set())):
        assert {int(optimizer.state[p]["step"]) for p in control.bank.parameters(task) if p in optimizer.state} == steps


def test_nine_tasks_compile_one_graph():
    """Of the whole Meta ControlNet, without a break."""
    control, graphs = tiny.tiny_control(list(TASKS)), []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(control, backend=backend, fullgraph=True)
    inputs, answers = tiny.control_inputs(), []
    for task in TASKS:
        control.bank.use(task)
        answers.append(compiled(*inputs).mid)
        torch.testing.assert_close(answers[-1], control(*inputs).mid)
    assert not any(torch.allclose(answer, answers[0], atol=1e-3) for answer in answers[1:])
    assert len(graphs) == 1


def test_unknown_tasks_are_named():
    with pytest.raises(UserError, match="LoRA 'depth' is not in the model; it has: dwpose, seg, blurred"):
        tiny.tiny_control().bank.use("depth")


def test_a_lora_loads_by_name_and_only_whole():
    one, two = tiny.tiny_control(), tiny.tiny_control()
    state = {n: torch.randn_like(p) for n, p in one.bank.state("seg").items()}
    two.bank.load("new", state, "here")
    assert two.bank.tasks == [*tiny.TASKS, "new"]
    assert all(torch.equal(p, state[n]) for n, p in two.bank.state("new").items())
    lost = next(iter(state))
    for broken in ({n: p for n, p in state.items() if n != lost}, state | {"more.lora_A.weight": state[lost]}):
        with pytest.raises(UserError, match=f"here: LoRA 'other': 1 weights are (missing|unknown).*({lost}|more)"):
            two.bank.load("other", broken, "here")
    assert two.bank.tasks == [*tiny.TASKS, "new"]
    for name in ("seg", "other"):
        with pytest.raises(UserError, match=f"LoRA '{name}': has rank 2; the model's is 4"):
            two.bank.load(name, {n: p[:2] if "lora_A" in n else p[:, :2] for n, p in state.items()}, "here")
    assert two.bank.tasks == [*tiny.TASKS, "new"]


def test_an_added_lora_is_saved(tmp_path):
    control = tiny.tiny_control()
    state = {n: torch.randn_like(p) for n, p in control.bank.state("seg").items()}
    control.bank.load("new", state, "here")
    control.save_pretrained(tmp_path)
    back = MetaControlNet.from_pretrained(tmp_path)
    assert back.bank.tasks == [*tiny.TASKS, "new"]
    assert all(torch.equal(p, state[n]) for n, p in back.bank.state("new").items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("b"), "here: 1 weights are missing, the first is b"),
        (lambda s: s.update(c=torch.ones(1)), "here: 1 weights are unknown to the model, the first is c"),
        (lambda s: s.update(a=torch.ones(3)), r"here: a has shape \(3,\), the model has \(2,\)"),
    ],
)
def test_weights_are_matched_by_name_and_shape(change, message):
    own = {"a": torch.zeros(2), "b": torch.zeros(1)}
    state = {"a": torch.ones(2), "b": torch.ones(1)}
    change(state)
    with pytest.raises(UserError, match=message):
        copy_strict(own, state, "here")
    assert not own["a"].any() and not own["b"].any()


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_tensors(tmp_path / "none.safetensors")
    save_tensors({"a": torch.ones(100)}, tmp_path / "cut.safetensors")
    whole = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-50])
    with pytest.raises(UserError, match="not a whole safetensors file") as error:
        load_tensors(tmp_path / "cut.safetensors")
    assert "\n" not in str(error.value)
