"""Detector families: each turns photos into heads that are drawn into one fused graph (arrow 6)."""
