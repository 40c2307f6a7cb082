"""Sharing on the Hub: model folders, dataset cards and metrics, looked at whole before anything leaves the machine."""

from __future__ import annotations

from bit_speech.hub.publishing import Publication, push

__all__ = ["Publication", "push"]
