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
{# Goes on to the next cell at `label`, where there is one. in: ESI cell; out: ESI the next one; clobbers: nothing else #}
{% macro next_cell(label) %}
    inc esi
    cmp esi, dword ptr [results + Results.handshake + Handshake.cells]
    jb {{ label }}
{% endmacro %}
{# Reads the final values. Where all are as they must be it goes to `good`; where one is not, and they stay as they are,
   to what follows, which is `.cell` with ESI 0; otherwise to `.return` with CF set. The caller compares one.
   in: the caller: ESI cell; out of it: ZF set where it is as it must be; clobbers: EAX, ECX, EDX, ESI, EDI #}
{% macro look_at_finals(good) %}
    call read_finals
    xor esi, esi
.look:
{{ caller() | trim("\n") }}
    jne .stay
{{ next_cell(".look") | trim("\n") }}
    jmp {{ good }}
.stay:
    call finals_stay
    jc .return
    xor esi, esi
.cell:
{% endmacro %}
