{% macro count64(operand, register="ebx") %}
    add dword ptr [{{ register }} + {{ operand }}], 1
    adc dword ptr [{{ register }} + {{ operand }} + 4], 0
{% endmacro %}
{% macro witness(kind, token, value, cpu, other="NO_CPU") %}
    push {{ other }}
    push {{ cpu }}
    push {{ value }}
    push {{ token }}
    push ViolationKind.{{ kind }}
    call violation
{% endmacro %}
{# One step of CRC-32 (ISO-HDLC, reflected 0xEDB88320), four bits at a time through crc_table.
   in: AL the byte, EDX the CRC register; out: EDX; clobbers: ECX #}
{% macro crc_byte() %}
    movzx ecx, al
    xor edx, ecx
{% for nibble in range(2) %}
    mov ecx, edx
    and ecx, 15
    shr edx, 4
    xor edx, dword ptr [crc_table + 4 * ecx]
{% endfor %}
{% endmacro %}
