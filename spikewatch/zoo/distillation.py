"""Learning from a teacher's outputs (Hinton, Vinyals & Dean 2015) and features.

It helps ternary and spiking students (TerViT and SpikeBERT use it), but it is not indispensable:
BitNet, SpikeGPT and Spikformer are trained without.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - its usual name


def distillation_loss(student: Tensor, teacher: Tensor, *, temperature: float = 2.0) -> Tensor:
    """τ²·KL(p_T ‖ p_S), with p = softmax(logits/τ), as a mean over all but the last dimension.

    τ² keeps the gradient's size whatever τ: for large τ it is (z_S − z_T)/n for n classes.

    Args:
        student: Logits, shape (*, classes).
        teacher: Logits of the same shape; no gradient flows into them.
        temperature: τ.
    """
    p_student = F.log_softmax(student.flatten(0, -2) / temperature, dim=-1)
    p_teacher = F.log_softmax(teacher.detach().flatten(0, -2) / temperature, dim=-1)
    kl = F.kl_div(p_student, p_teacher, reduction="batchmean", log_target=True)
    return temperature**2 * kl


def feature_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """1 − cosine of the features, as a mean over all but the last dimension: 0 if parallel.

    Args:
        student: Features, shape (*, channels).
        teacher: Features of the same shape; no gradient flows into them.
    """
    return 1 - F.cosine_similarity(student, teacher.detach(), dim=-1).mean()


@torch.no_grad()
def agreement(student: Tensor, teacher: Tensor) -> Tensor:
    """Share of samples for which both say the same class; logits of shape (*, classes)."""
    return (student.argmax(-1) == teacher.argmax(-1)).float().mean()
