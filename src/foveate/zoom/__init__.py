"""Zoom: far text as thumbnails, sorted so that they are true, opened where a query looks. On torch alone."""

from foveate.zoom.plan import ZoomPlan
from foveate.zoom.state import ZoomState
from foveate.zoom.whole import zoom_attention

__all__ = ["ZoomPlan", "ZoomState", "zoom_attention"]
