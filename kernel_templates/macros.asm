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
