"""What a user can do where a training needs more memory than there is."""

from meta_animator.settings import RunConfig


def out_of_memory(config: RunConfig, step: int, sharded: bool) -> str:
    """One line: the knobs that help, the cheapest first."""
    train, data = config.train, config.data
    advice = [] if train.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    if train.batch_size > 1:
        half, double = train.batch_size // 2, train.gradient_accumulation_steps * 2
        advice.append(f"train.batch_size={half} with train.gradient_accumulation_steps={double}")
    advice += [] if train.mixed_precision != "no" else ["train.mixed_precision=bf16"]
    if not sharded:
        advice += ["train.optimizer=adamw8bit"] if train.optimizer == "adamw" else []
        advice += ["train.ema_device=cpu"] if train.ema_decay and not train.ema_device else []
    advice += ["loss.image_weight=0"] if config.loss.image_weight else []
    advice.append(f"smaller data.height and data.width (now {data.height} x {data.width})")
    return (
        f"{config.output_dir}: out of memory at step {step}; what helps: {', then '.join(advice)}; "
        "--dry-run counts what each would save"
    )
