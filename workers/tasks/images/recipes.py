"""Recipes by name: how networks are trained. Every field can be overridden."""

from __future__ import annotations

from collections.abc import Mapping

from workers.tasks.images.config import Recipe

RECIPES: Mapping[str, Recipe] = {
    row.name: row
    for row in (
        # This project's own recipe: a few epochs on small images, which tell good functions from bad ones.
        Recipe(),
        # Smith 2018 (arXiv 1803.09820), as used by Page 2018 ("How to train your ResNet") for CIFAR-10 with 24 epochs.
        Recipe(
            "onecycle",
            epochs=24,
            batch_size=512,
            learning_rate=0.4,
            warmup=0.2,
            label_smoothing=0.1,
            crop=4,
            flip=True,
            cutout=8,
        ),
        # He et al. 2015 (arXiv 1512.03385), section 4.2. 32,000 and 48,000 steps are 91 and 136.5 epochs of their
        # 45,000 images; Ramachandran et al. 2017, section 2, stop at 10,000 steps, before either.
        Recipe(
            "he2016",
            steps=10_000,
            batch_size=128,
            nesterov=False,
            weight_decay=1e-4,
            schedule="steps",
            drops=(91.0, 136.5),
            crop=4,
            flip=True,
        ),
        # Zagoruyko and Komodakis 2016 (arXiv 1605.07146), section 3.
        Recipe(
            "wrn",
            epochs=200,
            batch_size=128,
            schedule="steps",
            drops=(60.0, 120.0, 160.0),
            drop_factor=0.2,
            crop=4,
            flip=True,
        ),
        # Huang et al. 2016 (arXiv 1608.06993), section 4.2.
        Recipe(
            "densenet",
            epochs=300,
            weight_decay=1e-4,
            schedule="steps",
            drops=(150.0, 225.0),
            crop=4,
            flip=True,
        ),
        # Touvron et al. 2021 (DeiT, arXiv 2012.12877), table 9: 5 epochs of warm-up. Without their further ways of
        # augmentation and regularisation, which need large data.
        Recipe(
            "transformer",
            epochs=300,
            batch_size=1024,
            optimizer="adamw",
            learning_rate=0.001,
            weight_decay=0.05,
            schedule="warmup",
            warmup=5 / 300,
            label_smoothing=0.1,
            crop=4,
            flip=True,
        ),
    )
}
