"""What no experiment can observe of an instruction, in the words that several of them share."""

from __future__ import annotations

NO_OLD_VALUE = "an update lost and one done twice by the same CPU: it gives back no old value, and the two cancel out"
LEAVES_NO_TRACE = "an update done twice: once the bits have their value it leaves no trace"
UNDOES_ITSELF = "two updates lost together, or one done three times: an even number of them changes nothing"
