"""Hugging Face Trainer: a module whose forward takes the columns of the data set and returns the loss."""

import os

import digits
import transformers
from torch import nn

from angulus import DenseHead


class Model(nn.Module):
    """Backbone and head. With **kwargs in forward, Trainer would not divide the loss by the micro-batches."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = digits.backbone(), DenseHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)

    def forward(self, images, labels=None):
        features = self.backbone(images)
        loss = None if labels is None else self.head(features, labels)
        return {"loss": loss, "logits": self.head.logits(features.detach())}  # logits for compute_metrics


class Trainer(transformers.Trainer):
    """Trainer that says to the head which micro-batch is the last of its step."""

    def training_step(self, model, *args, **kwargs):
        with self.accelerator.unwrap_model(model).head.accumulate(not self.accelerator.sync_gradients):
            return super().training_step(model, *args, **kwargs)


def accuracy(results):
    return {"accuracy": float((results.predictions.argmax(1) == results.label_ids).mean())}


def train(epochs, folder, resume=False):
    transformers.set_seed(0)
    model = Model()
    arguments = transformers.TrainingArguments(
        folder,
        num_train_epochs=epochs,
        per_device_train_batch_size=digits.BATCH // 4 // int(os.environ.get("WORLD_SIZE", 1)),
        gradient_accumulation_steps=4,
        learning_rate=0.005,
        lr_scheduler_type="constant",
        bf16=True,
        use_cpu=True,
        save_strategy="epoch",
        eval_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
    )
    train, test = ([{"images": x, "labels": int(y)} for x, y in rows] for rows in (digits.train, digits.test))
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=test, compute_metrics=accuracy)
    trainer.train(resume_from_checkpoint=resume or None)
    return model.backbone, model.head


digits.check("Hugging Face Trainer", train)
