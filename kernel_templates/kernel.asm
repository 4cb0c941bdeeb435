; The whole kernel, in the order it lies in memory: code, read-only data, zero-filled data.
{% include "constants.asm" %}
{% include "boot.asm" %}
{% include "main.asm" %}
{% include "serial.asm" %}
{% include "record.asm" %}
{% include "clock.asm" %}
{% include "vga.asm" %}
{% include "faults.asm" %}
{% include "apic.asm" %}
{% include "sleep.asm" %}
{% include "probe.asm" %}
{% include experiment_template %}
{% include "data.asm" %}
