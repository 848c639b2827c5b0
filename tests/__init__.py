"""Tests mirror the packages of the product; ROOT is the folder of the project."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
