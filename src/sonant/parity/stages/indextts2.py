"""Stages of indextts2."""

from sonant.parity.stages.table import Stage, StageTable

STAGES: tuple[Stage, ...] = ()
TABLE = StageTable("indextts2", STAGES)
