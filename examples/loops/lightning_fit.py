"""Lightning: the head is a submodule of the LightningModule."""

import os

import digits
import lightning
import torch
from torch.utils.data import DataLoader

from angulus import DenseHead


class Embedding(lightning.LightningModule):
    """Backbone and head; Lightning's checkpoint holds both, with the figures that the head keeps."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = digits.backbone(), DenseHead(digits.SIZE, digits.CLASSES, digits.OBJECTIVE)

    def forward(self, images):
        return self.backbone(images)

    def training_step(self, batch, number):
        images, labels = batch
        last = (number + 1) % self.trainer.accumulate_grad_batches == 0 or self.trainer.is_last_batch
        with self.head.accumulate(not last):  # one device has no no_sync() from which the head would know
            loss = self.head(self(images), labels)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, number):  # Lightning calls eval() and no_grad() around it
        images, labels = batch
        self.log("accuracy", (self.head.logits(self(images)).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)  # of backbone and head


def train(epochs, checkpoint, resume=False):
    lightning.seed_everything(0, verbose=False)
    module = Embedding()
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=4,
        gradient_clip_val=5.0,
        precision="bf16-mixed",
        accelerator="cpu",
        devices=int(os.environ.get("WORLD_SIZE", 1)),  # as many as torchrun started
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loaders = DataLoader(digits.train, digits.BATCH // 4 // trainer.world_size), DataLoader(digits.test, 87)
    trainer.fit(module, *loaders, ckpt_path=f"{checkpoint}.ckpt" if resume else None)
    trainer.save_checkpoint(f"{checkpoint}.ckpt")
    return module.backbone, module.head


digits.check("Lightning", train)
