; The whole kernel, in the order it lies in memory: code, read-only data, zero-filled data.
{% include "constants.asm" %}
{% include "boot.asm" %}
{% include "main.asm" %}
{% include "serial.asm" %}
{% include "record.asm" %}
{% if suite %}
{% include "tap.asm" %}
{% endif %}
{% include "code.asm" %}
{% include "screen.asm" %}
{% include "summary.asm" %}
{% include "clock.asm" %}
{% include "vga.asm" %}
{% include "pci.asm" %}
{% include "faults.asm" %}
{% include "acpi.asm" %}
{% include "apic.asm" %}
{% include "sleep.asm" %}
{% include "phase.asm" %}
{% include "witness.asm" %}
{% include "crew.asm" %}
work_begin:
{% include "probe.asm" %}
{% include "cells.asm" %}
{% include "walk.asm" %}
{% include "live.asm" %}
{% for template in experiment_templates %}
{% include template %}
{% endfor %}
{% for text in experiment_texts %}
{{ text }}
{% endfor %}
work_end:
{% for setup in setups %}
{{ setup.label }}:
{% for statement in setup.statements %}
    {{ statement }}
{% endfor %}
    ret
{% endfor %}
{% include "data.asm" %}
