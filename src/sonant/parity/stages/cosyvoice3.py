"""Stages of cosyvoice3."""

from sonant.parity.stages.table import Stage, StageTable

STAGES: tuple[Stage, ...] = ()
TABLE = StageTable("cosyvoice3", STAGES)
