; Plain access to a cell of each width, and the routines made of the instructions. Everything between work_begin and
; work_end may raise an exception that ends only the phase.

{% for width, register, pointer in ((8, "al", "byte"), (16, "ax", "word")) %}
; in: EDI cell; out: EAX
load_{{ width }}:
    movzx eax, {{ pointer }} ptr [edi]
    ret
; in: EDI cell, EAX
store_{{ width }}:
    mov {{ pointer }} ptr [edi], {{ register }}
    ret
{% endfor %}
load_32:
    mov eax, dword ptr [edi]
    ret
store_32:
    mov dword ptr [edi], eax
    ret
; a cell of 64 bits holds a value in both halves
load_64:
    mov eax, dword ptr [edi]
    cmp eax, dword ptr [edi + 4]
    je .whole
    mov eax, TORN
.whole:
    ret
store_64:
    mov dword ptr [edi], eax
    mov dword ptr [edi + 4], eax
    ret
{% for routine in routines %}
{{ routine.label }}:
{% for statement in routine.statements %}
    {{ statement | replace("{L}", ".") }}
{% endfor %}
    ret
{% endfor %}
