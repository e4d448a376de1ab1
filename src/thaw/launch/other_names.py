"""What options are called in other tools."""

OTHER_NAMES = {
    "epochs": "trainer.max_epochs", "num_epochs": "trainer.max_epochs", "patience": "trainer.early_stopping",
    "learning_rate": "optimizer.lr", "lr0": "optimizer.lr", "wd": "optimizer.weight_decay", "optim": "optimizer",
    "scheduler": "schedule", "warmup": "schedule.warmup_epochs", "augmentation": "augment", "freeze": "strategy",
    "batch": "dataset.batch_size", "bs": "dataset.batch_size", "workers": "dataset.num_workers",
    "imgsz": "dataset.image_size", "img_size": "dataset.image_size", "input_size": "dataset.image_size",
    "model": "backbone", "arch": "backbone", "network": "backbone", "pretrained": "backbone.weights",
    "data": "dataset.root", "data_dir": "dataset.root", "data_path": "dataset.root", "folds": "dataset.num_folds",
    "gpus": "trainer.devices", "device": "trainer.accelerator", "amp": "trainer.precision", "fp16": "trainer.precision",
    "out": "hydra.run.dir", "output": "hydra.run.dir", "output_dir": "hydra.run.dir",
    "fliplr": "augment.flip", "flipud": "augment.vertical_flip", "layer_decay": "strategy.first_stage_factor",
    "grad_accum": "trainer.accumulate", "accumulate_grad_batches": "trainer.accumulate", "ckpt_path": "resume",
    "rotate": "augment.degrees", "rotation": "augment.degrees", "hflip": "augment.flip",
    "vflip": "augment.vertical_flip", "brightness": "augment.policy", "hue": "augment.policy",
    "jitter": "augment.policy", "color_jitter": "augment.policy",
    "reprob": "augment.erasing", "smoothing": "augment.label_smoothing", "train_crop_size": "augment.start_size",
    "progressive": "augment.start_size", "class_weights": "dataset.balance", "imbalance": "dataset.balance",
    "subset": "dataset.train_per_class", "cross_validation": "dataset.num_folds", "model_ema": "trainer.ema_decay",
    "ema": "trainer.ema_decay", "clip_grad": "trainer.gradient_clip", "torchcompile": "trainer.compile",
    "half": "trainer.precision", "mixed_precision": "trainer.precision", "gpu": "trainer.devices",
    "loss_func": "loss", "loss_fn": "loss", "criterion": "loss", "focal": "loss", "metric": "metrics",
    "auroc": "metrics", "kappa": "metrics", "drop": "head.dropout", "checkpoint": "resume", "continue": "resume",
}  # fmt: skip
"""The option of each name."""
