"""What a user can do where a training needs more memory than there is."""

from meta_animator.settings import RunConfig


def dead_worker(error: RuntimeError, num_workers: int) -> str:
    """One line for a data-loader process that torch found dead."""
    return (
        f"a data-loader process died ({str(error).splitlines()[0]}); out of memory, or of /dev/shm, is the usual cause: lower "
        f"data.num_workers (now {num_workers}); the same command continues from the last checkpoint"
    )


def out_of_memory(config: RunConfig, step: int, sharded: bool, saved: bool = False) -> str:
    """One line: the knobs that help, the cheapest first, that the run can go on with; saved: from a checkpoint."""
    train, data = config.train, config.data
    advice = [] if train.gradient_checkpointing else ["train.gradient_checkpointing=true"]
    if train.batch_size > 1:
        times = next(k for k in range(2, train.batch_size + 1) if train.batch_size % k == 0)
        fewer, more = train.batch_size // times, train.gradient_accumulation_steps * times
        advice.append(f"train.batch_size={fewer} with train.gradient_accumulation_steps={more}")
    advice += [] if train.mixed_precision != "no" else ["train.mixed_precision=bf16"]
    if not sharded:
        advice += ["train.optimizer=adamw8bit"] if train.optimizer == "adamw" and not saved else []
        advice += ["train.ema_device=cpu"] if train.ema_decay and not train.ema_device else []
    advice += ["loss.image_weight=0"] if config.loss.image_weight else []
    advice.append(f"smaller data.height and data.width (now {data.height} x {data.width})")
    return (
        f"{config.output_dir}: out of memory at step {step}; what helps: {', then '.join(advice)}; "
        "--dry-run counts what each would save"
    )
