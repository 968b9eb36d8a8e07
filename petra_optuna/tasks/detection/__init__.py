"""Detection of objects: boxes, loss, metric, and data sets in the formats of COCO and YOLO."""

from petra_optuna.tasks.detection.task import build, build_model, detection_task, read_detection

__all__ = ["build", "build_model", "detection_task", "read_detection"]
