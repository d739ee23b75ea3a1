"""Zoom: far text as thumbnails, sorted so that they are true, opened where a query looks. On torch alone."""

from foveate.spec.zoom_plan import ZoomPlan
from foveate.zooming.keeping import Keeping
from foveate.zooming.state import ZoomState
from foveate.zooming.whole import zoom_attention

__all__ = ["Keeping", "ZoomPlan", "ZoomState", "zoom_attention"]
