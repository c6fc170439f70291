"""Precision, recall and F1, None where there is nothing to take them of."""


def precision_recall_f(tp: int, fp: int, fn: int) -> dict[str, float | None]:
    """{"p", "r", "f"} from 0 to 1: p is None where nothing was predicted, r where there is no gold, f where neither."""
    return {
        "p": tp / (tp + fp) if tp + fp else None,
        "r": tp / (tp + fn) if tp + fn else None,
        "f": 2 * tp / (2 * tp + fp + fn) if tp + fp + fn else None,
    }
